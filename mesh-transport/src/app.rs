//! The way to the local application: pooled plaintext HTTP/1.1 connections, and HTTP/2 for gRPC.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::Response;
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::body::Body;
use crate::connect::h2_client;
use crate::connect::tcp;
use crate::error::Error;
use crate::tasks::Tasks;

/// How connections to the application are kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AppConfig {
    /// Host and port of the application.
    pub address: String,
    /// Idle HTTP/1.1 connections kept for reuse. Default 256.
    pub max_idle: usize,
    /// How long an idle connection is trusted. Default 4 s, under the 5 s after which common servers close theirs.
    pub idle_timeout: Duration,
    /// How long connecting may take. Default 5 s.
    pub connect_timeout: Duration,
}

impl AppConfig {
    /// The defaults for the application at `address`.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            max_idle: 256,
            idle_timeout: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Sends requests to the application. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct AppClient(Arc<Shared>);

struct Shared {
    config: AppConfig,
    tasks: Tasks,
    /// The one given back last at the back.
    idle: Mutex<VecDeque<Idle>>,
    h2: tokio::sync::Mutex<Option<http2::SendRequest<Body>>>,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// An HTTP/1.1 connection that goes back to its pool when the answer on it has been read to its end.
pub(crate) struct Lease {
    home: Arc<Shared>,
    sender: http1::SendRequest<Body>,
}

impl AppClient {
    /// A client for the application that `config` names. Opens nothing yet.
    pub fn new(config: AppConfig, tasks: Tasks) -> Self {
        Self(Arc::new(Shared {
            config,
            tasks,
            idle: Mutex::default(),
            h2: tokio::sync::Mutex::new(None),
        }))
    }

    /// Sends `request`, whose URI is in origin form: gRPC over HTTP/2 with prior knowledge, all else over HTTP/1.1.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] or [`Error::Unprocessed`] when the application never saw the request,
    /// [`Error::Exchange`] when it may have.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        if is_grpc(&request) {
            self.send_h2(request).await
        } else {
            self.send_h1(request).await
        }
    }

    async fn send_h1(&self, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        *request.version_mut() = http::Version::HTTP_11;
        // The library writes a given length as it stands; one that the body does not have would leave the next
        // request on this connection to be read as its rest (threat 13).
        if let Some(length) = request.body().size_hint().exact()
            && request.headers().contains_key(http::header::CONTENT_LENGTH)
        {
            let headers = request.headers_mut();
            headers.insert(
                http::header::CONTENT_LENGTH,
                http::HeaderValue::from(length),
            );
        }
        // Of a GET whose length nobody knows the library would leave the body out (RFC 9112 section 6.1 has it chunked).
        if !request.body().is_end_stream()
            && request.body().size_hint().exact().is_none()
            && !request.headers().contains_key(http::header::CONTENT_LENGTH)
        {
            let chunked = http::HeaderValue::from_static("chunked");
            let headers = request.headers_mut();
            headers.insert(http::header::TRANSFER_ENCODING, chunked);
        }
        loop {
            let pooled = self.0.take_idle();
            let is_fresh = pooled.is_none();
            let mut sender = match pooled {
                Some(sender) => sender,
                None => Box::pin(self.connect_h1()).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease {
                        home: Arc::clone(&self.0),
                        sender,
                    };
                    return Ok(response.map(|body| Body::from(body).with_lease(lease)));
                }
                Err(mut failed) => match failed.take_message() {
                    // An idle connection that the application closed meanwhile: nothing was written.
                    Some(unsent) if !is_fresh => request = unsent,
                    Some(_) => {
                        return Err(Error::Unprocessed {
                            source: Box::new(failed.into_error()),
                        });
                    }
                    None => return Err(Error::exchange(failed.into_error())),
                },
            }
        }
    }

    async fn connect_h1(&self) -> Result<http1::SendRequest<Body>, Error> {
        let stream = self.connect().await?;
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|source| self.refused(source))?;
        self.0.tasks.start(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the application ended");
            }
        });
        Ok(sender)
    }

    async fn send_h2(&self, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        *request.version_mut() = http::Version::HTTP_2;
        absolute(&mut request, &self.0.config.address);
        let mut is_first = true;
        loop {
            let mut sender = self.h2_sender().await?;
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(Body::from)),
                Err(failed) => failed,
            };
            match failed.take_message() {
                // The connection closed meanwhile: nothing was written.
                Some(unsent) if is_first => request = unsent,
                Some(_) => {
                    return Err(Error::Unprocessed {
                        source: Box::new(failed.into_error()),
                    });
                }
                None => return Err(Error::exchange(failed.into_error())),
            }
            is_first = false;
        }
    }

    async fn h2_sender(&self) -> Result<http2::SendRequest<Body>, Error> {
        if let Ok(current) = self.0.h2.try_lock()
            && let Some(sender) = current.as_ref()
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        Box::pin(self.connect_h2()).await
    }

    async fn connect_h2(&self) -> Result<http2::SendRequest<Body>, Error> {
        let mut current = self.0.h2.lock().await;
        if let Some(sender) = current.as_ref()
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        let stream = self.connect().await?;
        let handshake = h2_client(&self.0.tasks)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = handshake.map_err(|source| self.refused(source))?;
        self.0.tasks.start(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the application ended");
            }
        });
        *current = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<TcpStream, Error> {
        tcp(&self.0.config.address, self.0.config.connect_timeout, None).await
    }

    fn refused(&self, source: hyper::Error) -> Error {
        Error::Connect {
            destination: self.0.config.address.clone(),
            source: Box::new(source),
        }
    }
}

impl Shared {
    /// The connection used last that is still open and ready: the warmest, and the idle ones can age.
    fn take_idle(&self) -> Option<http1::SendRequest<Body>> {
        let mut idle = self.idle.lock();
        if let Some(deadline) = Instant::now().checked_sub(self.config.idle_timeout) {
            while idle.front().is_some_and(|oldest| oldest.since < deadline) {
                idle.pop_front();
            }
        }
        // One whose answer was read a moment ago becomes ready when its driver runs next; it stays for the next caller.
        let position = idle
            .iter()
            .rposition(|connection| connection.sender.is_ready());
        let taken = position.and_then(|position| idle.remove(position));
        if taken.is_none() {
            idle.retain(|connection| !connection.sender.is_closed());
        }
        taken.map(|connection| connection.sender)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppClient")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Lease {
    pub(crate) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.home.idle.lock();
        if idle.len() >= self.home.config.max_idle && idle.pop_front().is_none() {
            return;
        }
        idle.push_back(Idle {
            sender: self.sender,
            since: Instant::now(),
        });
    }
}

/// Whether a request is gRPC, which needs HTTP/2 end to end (gRPC over HTTP/2, "Requests").
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// HTTP/2 wants scheme and authority in the URI; the authority is the request's own where it has one.
pub(crate) fn absolute<B>(request: &mut Request<B>, fallback: &str) {
    let authority = request.headers_mut().remove(http::header::HOST);
    let authority = authority
        .as_ref()
        .and_then(|host| host.to_str().ok())
        .unwrap_or(fallback);
    let mut parts = request.uri().clone().into_parts();
    if parts.authority.is_none() {
        parts.authority = authority.parse().ok();
    }
    parts.scheme = Some(http::uri::Scheme::HTTP);
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}
