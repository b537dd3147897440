//! One request and its answer, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsConnector;

use super::BoxError;
use super::Client;
use super::Error;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// With its parameters, but for those of a blocking query.
    pub(super) path: String,
    pub(super) body: Bytes,
    /// Waits for an answer beyond this index; takes the one of now where it is 0.
    pub(super) index: u64,
    /// How long to wait for it.
    pub(super) wait: Duration,
    pub(super) max_answer: usize,
    /// Takes "not found" for an answer too.
    pub(super) may_be_absent: bool,
}

impl Ask {
    /// A read.
    pub(super) fn get(client: &Client, path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: Bytes::new(),
            index: 0,
            wait: client.0.wait,
            max_answer: client.0.max_answer,
            may_be_absent: false,
        }
    }

    /// A write.
    pub(super) fn put(client: &Client, path: impl Into<String>, body: Bytes) -> Self {
        Self {
            method: Method::PUT,
            body,
            ..Self::get(client, path)
        }
    }

    /// Sends it and reads the answer whole.
    pub(super) async fn send(&self, client: &Client) -> Result<Fetched, Error> {
        let timeout = client.0.timeout;
        let (target, limit) = if self.index == 0 {
            (self.path.clone(), timeout)
        } else {
            let joined = if self.path.contains('?') { '&' } else { '?' };
            let (index, wait) = (self.index, self.wait);
            let target = format!(
                "{}{joined}index={index}&wait={}ms",
                self.path,
                wait.as_millis()
            );
            // Consul adds up to a sixteenth of the wait, so that clients spread out.
            (target, wait + wait / 16 + timeout)
        };
        let answered = tokio::time::timeout(limit, self.fetch(client, &target)).await;
        answered.map_err(|_elapsed| self.timed_out(client, limit))?
    }

    async fn fetch(&self, client: &Client, target: &str) -> Result<Fetched, Error> {
        let inner = &client.0;
        let request = self.request(client, target)?;
        let connecting = connect(client);
        let connected = tokio::time::timeout(inner.timeout, connecting).await;
        let stream = connected
            .map_err(|_elapsed| self.timed_out(client, inner.timeout))?
            .map_err(|source| self.failed(client, source))?;
        match stream {
            Stream::Plain(stream) => self.exchange(client, request, stream).await,
            Stream::Tls(stream) => self.exchange(client, request, stream).await,
        }
    }

    fn request(&self, client: &Client, target: &str) -> Result<Request<Full<Bytes>>, Error> {
        let inner = &client.0;
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("{}{target}", inner.server.prefix))
            .header(header::HOST, &inner.server.authority)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(self.body.clone()))
            .map_err(|source| self.failed(client, source))?;
        if let Some(namespace) = &inner.namespace {
            let headers = request.headers_mut();
            headers.insert("x-consul-namespace", namespace.clone());
        }
        if let Some(token) = &inner.token {
            let token = token().map_err(|source| Error::Token {
                source: source.into(),
            })?;
            let mut value = HeaderValue::try_from(token.trim()).map_err(|source| Error::Token {
                source: source.into(),
            })?;
            value.set_sensitive(true);
            request.headers_mut().insert("x-consul-token", value);
        }
        Ok(request)
    }

    async fn exchange<S>(
        &self,
        client: &Client,
        request: Request<Full<Bytes>>,
        stream: S,
    ) -> Result<Fetched, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let handshake = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await;
        let (mut sender, connection) = handshake.map_err(|source| self.failed(client, source))?;
        let asking = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|source| self.failed(client, source))?;
            let (head, body) = response.into_parts();
            let (body, large) = self.read(client, body).await?;
            let is_absent = self.may_be_absent && head.status == StatusCode::NOT_FOUND;
            if head.status != StatusCode::OK && !is_absent {
                return Err(Error::Status {
                    url: client.url().to_owned(),
                    path: self.path.clone(),
                    status: head.status.as_u16(),
                    message: beginning(&body),
                });
            }
            Ok(Fetched {
                is_absent,
                headers: head.headers,
                body,
                _large: large,
            })
        };
        // The connection is driven here, for as long as it is needed, and by nobody else.
        let mut asking = std::pin::pin!(asking);
        tokio::select! {
            biased;
            answered = &mut asking => answered,
            _ended = connection => asking.await,
        }
    }

    /// The body. Of those that are large one is read at a time, so that many services together cost no more memory than
    /// the largest.
    async fn read(
        &self,
        client: &Client,
        mut body: Incoming,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Error> {
        let (mut whole, mut large) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| self.failed(client, source))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = whole.len().saturating_add(data.len());
            if length > self.max_answer {
                return Err(Error::TooLarge {
                    url: client.url().to_owned(),
                    path: self.path.clone(),
                    limit: self.max_answer,
                });
            }
            if length > LARGE && large.is_none() {
                // It is never closed.
                large = Arc::clone(&client.0.large).acquire_owned().await.ok();
            }
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), large))
    }

    /// The answer as JSON.
    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        client: &Client,
        fetched: &Fetched,
    ) -> Result<T, Error> {
        serde_json::from_slice(&fetched.body).map_err(|source| self.misunderstood(client, source))
    }

    /// Refuses an answer that lacks what the token may not read.
    pub(super) fn refuse_filtered(&self, client: &Client, fetched: &Fetched) -> Result<(), Error> {
        let filtered = fetched.headers.get("x-consul-results-filtered-by-acls");
        if filtered.is_some_and(|value| value == "true") {
            return Err(self.filtered(client));
        }
        Ok(())
    }

    pub(super) fn filtered(&self, client: &Client) -> Error {
        Error::Filtered {
            url: client.url().to_owned(),
            path: self.path.clone(),
        }
    }

    pub(super) fn misunderstood(&self, client: &Client, source: impl Into<BoxError>) -> Error {
        Error::Answer {
            url: client.url().to_owned(),
            path: self.path.clone(),
            source: source.into(),
        }
    }

    fn failed(&self, client: &Client, source: impl Into<BoxError>) -> Error {
        Error::Exchange {
            url: client.url().to_owned(),
            path: self.path.clone(),
            source: source.into(),
        }
    }

    fn timed_out(&self, client: &Client, limit: Duration) -> Error {
        Error::Timeout {
            url: client.url().to_owned(),
            path: self.path.clone(),
            limit,
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The status was "not found", where that is an answer.
    pub(super) is_absent: bool,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Held for as long as a large body is.
    _large: Option<OwnedSemaphorePermit>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn connect(client: &Client) -> Result<Stream, BoxError> {
    let server = &client.0.server;
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    stream.set_nodelay(true)?;
    // A query waits for minutes: without probes, a machine that went away without a word would be waited for as long.
    SockRef::from(&stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE)
            .with_retries(KEEPALIVE_RETRIES),
    )?;
    let Some((config, name)) = &server.tls else {
        return Ok(Stream::Plain(stream));
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name.clone(), stream).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// What Consul says is one line for people; whatever stands in its place may say more.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.trim().lines().next().unwrap_or_default();
    let printable = line.chars().filter(|c| !c.is_control());
    printable.take(MAX_MESSAGE).collect()
}

/// Consul's heads are a few hundred bytes.
const MAX_HEAD: usize = 64 * 1024;
const MAX_MESSAGE: usize = 200;
/// Beyond this, answers are read one at a time; some 600 instances.
const LARGE: usize = 1 << 20;
/// With the probes, a peer that is gone is noticed within 20 s.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
