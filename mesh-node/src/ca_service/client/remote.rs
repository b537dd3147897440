//! Asking the server: one connection a question, bounded in time and size.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_auth::ca::join::JoinToken;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::svid;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use mesh_transport::tls::newcomer;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ClientError;

/// Where the server is, and who it must be.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    host: String,
    port: u16,
    expected: SpiffeId,
}

/// What `POST /v1/sign` answers.
#[derive(Deserialize)]
pub(super) struct SignAnswer {
    pub(super) certificate: String,
    pub(super) bundle: String,
}

/// What `GET /v1/bundle.pem` answers.
pub(super) struct Bundle {
    pub(super) pem: String,
    /// The server's name for it.
    pub(super) tag: Option<String>,
}

struct Answer {
    status: StatusCode,
    tag: Option<String>,
    body: Bytes,
}

impl Remote {
    pub(super) fn new(url: &str, expected: SpiffeId) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url {
            url: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_unread| wrong())?;
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri.authority().filter(|_| is_bare).ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https") || authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Self {
            host: authority
                .host()
                .trim_matches(|c| matches!(c, '[' | ']'))
                .to_owned(),
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            expected,
        })
    }

    /// How to connect while `bundle` is trusted: as ourselves, or as nobody.
    pub(super) fn tls(
        bundle: &str,
        trust_domain: &TrustDomain,
        own: Option<&Credentials>,
    ) -> Result<Arc<ClientConfig>, ClientError> {
        let build = || {
            let roots = certificates(bundle.as_bytes())?;
            let bundles = TrustBundles::new().with_domain(trust_domain.as_str(), &roots)?;
            let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
            newcomer::client(Arc::new(SpiffeLeaf::new()), clock, bundles, own)
        };
        build().map_err(ClientError::Tls)
    }

    /// Asks for a certificate, with the token where there is one.
    pub(super) async fn sign(
        &self,
        tls: Arc<ClientConfig>,
        (request, token): (String, Option<JoinToken>),
        lifetime: Duration,
        tasks: &Tasks,
    ) -> Result<SignAnswer, ClientError> {
        let target = format!("/v1/sign?lifetime={}", lifetime.as_secs().max(1));
        let mut asked = self.request("POST", &target, Bytes::from(request))?;
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|error| ClientError::Http(error.into()))?;
            value.set_sensitive(true);
            asked.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = self.ask(tls, asked, ANSWER, tasks).await?;
        serde_json::from_slice(&answer.body).map_err(ClientError::Answer)
    }

    /// The bundle once its tag is another than `known`; `None` where it stayed the same for as long as the server waits.
    pub(super) async fn bundle(
        &self,
        tls: Arc<ClientConfig>,
        known: Option<&str>,
        tasks: &Tasks,
    ) -> Result<Option<Bundle>, ClientError> {
        let mut asked = self.request("GET", "/v1/bundle.pem", Bytes::new())?;
        let headers = asked.headers_mut();
        if let Some(known) = known {
            let value = |text: &str| {
                HeaderValue::try_from(text).map_err(|error| ClientError::Http(error.into()))
            };
            headers.insert(header::IF_NONE_MATCH, value(known)?);
            let wait = value(&format!("wait={}", WAIT.as_secs()))?;
            headers.insert(header::HeaderName::from_static("prefer"), wait);
        }
        let answer = self.ask(tls, asked, WAIT + ANSWER, tasks).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let text = std::str::from_utf8(&answer.body);
        let text = text.map_err(|error| ClientError::Http(error.into()))?;
        Ok(Some(Bundle {
            pem: text.to_owned(),
            tag: answer.tag,
        }))
    }

    fn request(
        &self,
        method: &str,
        target: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.to_string())
            .body(Full::new(body))
            .map_err(|error| ClientError::Http(error.into()))
    }

    async fn ask(
        &self,
        tls: Arc<ClientConfig>,
        request: Request<Full<Bytes>>,
        limit: Duration,
        tasks: &Tasks,
    ) -> Result<Answer, ClientError> {
        let slow = |_elapsed| ClientError::Slow {
            server: self.to_string(),
        };
        let stream = tokio::time::timeout(CONNECT, self.connect(tls));
        let stream = stream.await.map_err(slow)??;
        let exchange = async {
            let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            // It ends when the sender is gone.
            tasks.start(async move { drop(driver.await) });
            let response = sender.send_request(request).await?;
            let status = response.status();
            let tag = response.headers().get(header::ETAG);
            let tag = tag.and_then(|tag| Some(tag.to_str().ok()?.to_owned()));
            let body = Limited::new(response.into_body(), LARGEST)
                .collect()
                .await?;
            Ok(Answer {
                status,
                tag,
                body: body.to_bytes(),
            })
        };
        let answer = tokio::time::timeout(limit, exchange).await.map_err(slow)?;
        let answer = answer.map_err(ClientError::Http)?;
        if answer.status.is_success() || answer.status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        Err(ClientError::Refused {
            status: answer.status.as_u16(),
            why: reason(&answer.body),
        })
    }

    /// Connects, and makes sure that it is the authority that answers.
    async fn connect(&self, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ClientError> {
        let failed = |source| ClientError::Connect {
            server: self.to_string(),
            source,
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(failed)?;
        let connector = TlsConnector::from(tls);
        let stream = connector.connect(name, stream).await.map_err(failed)?;
        let shown = stream.get_ref().1.peer_certificates();
        let found = shown
            .and_then(<[_]>::first)
            .and_then(|leaf| svid::leaf_identity(leaf).ok());
        if found.as_ref() == Some(&self.expected) {
            return Ok(stream);
        }
        Err(ClientError::Stranger {
            found: found.map_or_else(|| "nobody".to_owned(), |found| found.to_string()),
            expected: self.expected.clone(),
        })
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The sentence in an answer that refuses.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Page {
        error: String,
    }
    let page: Result<Page, _> = serde_json::from_slice(body);
    let mut why = page.map_or_else(|_| "no reason given".to_owned(), |page| page.error);
    why.truncate(why.floor_char_boundary(LONGEST_REASON));
    why
}

/// As `mesh-node ca serve` listens.
const DEFAULT_PORT: u16 = 8443;
/// TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// Signing takes milliseconds.
const ANSWER: Duration = Duration::from_secs(15);
/// How long the server may keep us waiting for news of the roots.
const WAIT: Duration = Duration::from_secs(50);
/// A chain and sixteen roots with room to spare.
const LARGEST: usize = 1 << 20;
const LONGEST_REASON: usize = 256;
