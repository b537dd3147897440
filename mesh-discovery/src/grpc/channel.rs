//! One connection, driven by those who wait for its answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use futures_util::future::Shared;
use http::Request;
use http::Response;
use http::Uri;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor as _;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tonic::Status;
use tonic::body::Body;

use super::BoxError;
use super::KeepAlive;
use super::Server;
use super::nursery::Nursery;

/// An HTTP/2 connection; clones are the same. It ends when the last clone and the last answer are dropped.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: http2::SendRequest<Body>,
    connection: Shared<Nursery>,
    server: Arc<str>,
    origin: Uri,
}

impl Channel {
    /// Agrees on HTTP/2 with a server that `stream` leads to.
    pub(super) async fn new<S>(
        stream: S,
        server: &Server,
        keep_alive: KeepAlive,
    ) -> Result<Self, BoxError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let nursery = Nursery::new();
        let handshake = http2::Builder::new(nursery.spawner())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(stream));
        let (sender, dispatch) = handshake.await?;
        // Whoever has a request under way is told how the connection ended.
        nursery.spawner().execute(dispatch.map(drop));
        Ok(Self {
            sender,
            connection: nursery.shared(),
            // Its own, to be told from other connections to the same place.
            server: Arc::from(&*server.shown),
            origin: server.origin.clone(),
        })
    }

    /// What begins every request: scheme and authority.
    pub(crate) fn origin(&self) -> &Uri {
        &self.origin
    }

    /// Where it leads, as it was configured.
    pub(crate) fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// True when both are the same connection.
    #[cfg(feature = "etcd")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.server, &other.server)
    }

    /// True when this is known to be of no use any more.
    #[cfg(any(feature = "etcd", test))]
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.server).finish()
    }
}

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<Answer>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self {
            mut sender,
            mut connection,
            server,
            ..
        } = self.clone();
        Box::pin(async move {
            // What happened while nobody looked is seen before the request is lost on it.
            std::future::poll_fn(|cx| {
                drive(&mut connection, cx);
                Poll::Ready(())
            })
            .await;
            let mut answer = std::pin::pin!(sender.send_request(request));
            let answered = std::future::poll_fn(|cx| {
                drive(&mut connection, cx);
                answer.as_mut().poll(cx)
            });
            match answered.await {
                Ok(response) => Ok(response.map(|body| Answer {
                    body,
                    connection,
                    server,
                })),
                Err(error) => Err(broken(&server, error)),
            }
        })
    }
}

/// The body of an answer. Whoever reads it drives the connection.
pub(crate) struct Answer {
    body: Incoming,
    connection: Shared<Nursery>,
    server: Arc<str>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        drive(&mut self.connection, cx);
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map_err(|error| broken(&self.server, error))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.server).finish()
    }
}

/// Lets the connection do what it can now, and wakes whoever drives it when it can do more.
fn drive(connection: &mut Shared<Nursery>, cx: &mut Context<'_>) {
    // Once it has ended it must not be polled again; all that waits for it is told by hyper.
    if !connection.is_terminated() {
        let _is_over = connection.poll_unpin(cx).is_ready();
    }
}

/// gRPC over HTTP/2, "Errors": what breaks below a call is `UNAVAILABLE`.
fn broken(server: &str, error: hyper::Error) -> Status {
    let mut status = Status::unavailable(format!("the connection to {server} broke"));
    status.set_source(Arc::new(error));
    status
}

/// A list of 10,000 endpoints is a few megabytes; this much may be under way before it is read.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
