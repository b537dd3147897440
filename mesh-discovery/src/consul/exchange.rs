//! One request and its answer, on a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::BoxError;
use super::Client;
use super::Error;

/// What came back.
pub(super) struct Fetched {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Waits for an answer beyond `index`, or takes the one of now where that is 0.
pub(super) async fn ask(client: &Client, path: &str, index: u64) -> Result<Fetched, Error> {
    let inner = &client.0;
    let (target, limit) = if index == 0 {
        (path.to_owned(), inner.timeout)
    } else {
        let (wait, joined) = (inner.wait, if path.contains('?') { '&' } else { '?' });
        let target = format!("{path}{joined}index={index}&wait={}ms", wait.as_millis());
        // Consul adds up to a sixteenth of the wait, so that clients spread out.
        (target, wait + wait / 16 + inner.timeout)
    };
    let answered = tokio::time::timeout(limit, fetch(client, path, &target)).await;
    answered.map_err(|_elapsed| Error::Timeout {
        url: client.url().to_owned(),
        path: path.to_owned(),
        limit,
    })?
}

/// Reads an answer whole; one that lacks parts only where that is accepted.
pub(super) fn decode<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    fetched: &Fetched,
    accepts_filtered: bool,
) -> Result<T, Error> {
    let filtered = fetched.headers.get("x-consul-results-filtered-by-acls");
    if !accepts_filtered && filtered.is_some_and(|value| value == "true") {
        return Err(Error::Filtered {
            url: client.url().to_owned(),
            path: path.to_owned(),
        });
    }
    serde_json::from_slice(&fetched.body).map_err(|source| Error::Answer {
        url: client.url().to_owned(),
        path: path.to_owned(),
        source: source.into(),
    })
}

/// Asks for `target`; `path` is how errors call it.
async fn fetch(client: &Client, path: &str, target: &str) -> Result<Fetched, Error> {
    let inner = &client.0;
    let server = &inner.server;
    let mut request = Request::get(format!("{}{target}", server.prefix))
        .header(header::HOST, &server.authority)
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|source| failed(client, path, source))?;
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
    let connecting = async {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        stream.set_nodelay(true)?;
        let Some((config, name)) = &server.tls else {
            return Ok::<_, BoxError>(Stream::Plain(stream));
        };
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Stream::Tls(Box::new(
            connector.connect(name.clone(), stream).await?,
        )))
    };
    let connected = tokio::time::timeout(inner.timeout, connecting).await;
    let stream = connected
        .map_err(|_elapsed| Error::Timeout {
            url: server.shown.clone(),
            path: path.to_owned(),
            limit: inner.timeout,
        })?
        .map_err(|source| failed(client, path, source))?;
    match stream {
        Stream::Plain(stream) => exchange(client, path, request, stream).await,
        Stream::Tls(stream) => exchange(client, path, request, stream).await,
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn exchange<S>(
    client: &Client,
    path: &str,
    request: Request<Empty<Bytes>>,
    stream: S,
) -> Result<Fetched, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let failed = |source: BoxError| failed(client, path, source);
    let handshake = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(|source| failed(source.into()))?;
    let asking = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| failed(source.into()))?;
        let (head, body) = response.into_parts();
        let limit = client.0.max_answer;
        let body = Limited::new(body, limit).collect().await;
        let body = body.map_err(|source| {
            if source.is::<LengthLimitError>() {
                Error::TooLarge {
                    url: client.url().to_owned(),
                    path: path.to_owned(),
                    limit,
                }
            } else {
                failed(source)
            }
        })?;
        let body = body.to_bytes();
        if head.status != StatusCode::OK {
            return Err(Error::Status {
                url: client.url().to_owned(),
                path: path.to_owned(),
                status: head.status.as_u16(),
                message: beginning(&body),
            });
        }
        Ok(Fetched {
            headers: head.headers,
            body,
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

fn failed(client: &Client, path: &str, source: impl Into<BoxError>) -> Error {
    Error::Exchange {
        url: client.url().to_owned(),
        path: path.to_owned(),
        source: source.into(),
    }
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
