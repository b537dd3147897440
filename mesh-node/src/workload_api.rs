//! The SPIFFE Workload API for programs on this machine: they get the identity of the service that this node stands
//! beside, as an agent such as SPIRE's would give it.
//!
//! X509-SVIDs and X.509 bundles are served, and pushed when they change. Whoever asks is known by the user that the
//! kernel says the other end of the socket runs as (threat 61). JWT-SVIDs are not served: who wants one gets
//! `UNIMPLEMENTED`.
//!
//! # Sources
//!
//! SPIFFE Workload Endpoint, sections 4 (transport, the metadata that every request carries) and 6 (errors); SPIFFE
//! Workload API, section 5; gRPC over HTTP/2 for frames and trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::header;
use http_body::Body;
use http_body::Frame;
use http_body_util::Either;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use mesh_transport::drain::Drain;
use mesh_transport::drain::Phase;
use mesh_transport::tasks::Tasks;
use prometheus_client::metrics::counter::Counter;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;

mod authority;
mod page;
mod socket;

use self::authority::Readable;
pub(crate) use self::page::Page;
pub(crate) use self::socket::Access;
pub(crate) use self::socket::Socket;

/// Answers who asks on a socket.
#[derive(Debug)]
pub(crate) struct WorkloadApi {
    socket: Socket,
    clients: Clients,
}

/// What every connection needs.
#[derive(Clone, Debug)]
struct Clients {
    uids: Arc<[u32]>,
    pages: watch::Receiver<Arc<Page>>,
    tasks: Tasks,
    refused: Counter,
}

impl WorkloadApi {
    /// Gives `pages` to programs that run as one of `uids`; whoever else asks is counted in `refused`.
    pub(crate) fn new(
        socket: Socket,
        uids: Vec<u32>,
        pages: watch::Receiver<Arc<Page>>,
        (tasks, refused): (Tasks, Counter),
    ) -> Self {
        let uids = uids.into();
        Self {
            socket,
            clients: Clients {
                uids,
                pages,
                tasks,
                refused,
            },
        }
    }

    /// Serves until draining begins, and then takes the socket away.
    pub(crate) async fn run(self, mut drain: Drain) {
        let (known, strangers) = (
            Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            Arc::new(Semaphore::new(MAX_STRANGERS)),
        );
        loop {
            let stream = tokio::select! {
                stream = self.socket.accept() => stream,
                () = drain.reached(Phase::Draining) => break,
            };
            let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else {
                continue;
            };
            let is_known = self.clients.uids.contains(&uid);
            let places = if is_known { &known } else { &strangers };
            // Nobody waits for a place: a program that fills them all has only itself to blame.
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                continue;
            };
            if !is_known {
                self.clients.refused.inc();
                tracing::warn!(
                    uid,
                    "a program of this user asked for our identity and got none; see workload_api.uids"
                );
            }
            let (clients, drain) = (self.clients.clone(), drain.clone());
            self.clients.tasks.start(async move {
                let served = clients.serve(stream, is_known, drain);
                if is_known {
                    served.await;
                } else {
                    // Long enough for the answer.
                    drop(tokio::time::timeout(STRANGER, served).await);
                }
                drop(place);
            });
        }
    }
}

impl Clients {
    async fn serve(self, stream: UnixStream, is_known: bool, mut drain: Drain) {
        let tasks = self.tasks.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let response = self.answer(&request, is_known);
            async move { Ok::<_, Infallible>(response) }
        });
        let mut builder = hyper::server::conn::http2::Builder::new(tasks);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES);
        let mut connection =
            std::pin::pin!(builder.serve_connection(TokioIo::new(Readable::new(stream)), answer));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = drain.reached(Phase::Draining) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(STRANGER, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the workload api ended");
        }
    }

    fn answer(&self, request: &Request<Incoming>, is_known: bool) -> Response<Answer> {
        let headers = request.headers();
        let is = |name: &str, wanted: &[u8]| {
            headers
                .get(name)
                .is_some_and(|value| value.as_bytes().starts_with(wanted))
        };
        if request.method() != Method::POST || !is("content-type", b"application/grpc") {
            return end(INVALID_ARGUMENT, "this is a gRPC server");
        }
        // Keeps programs that can be made to send requests elsewhere from asking here (Workload Endpoint, section 4).
        if headers
            .get(SECURITY_HEADER)
            .is_none_or(|value| value != "true")
        {
            return end(
                INVALID_ARGUMENT,
                "the metadata workload.spiffe.io: true is missing",
            );
        }
        if !is_known {
            return end(PERMISSION_DENIED, "no identity issued");
        }
        match request.uri().path() {
            "/SpiffeWorkloadAPI/FetchX509SVID" => self.stream(Page::svids),
            "/SpiffeWorkloadAPI/FetchX509Bundles" => self.stream(Page::bundles),
            _ => end(
                UNIMPLEMENTED,
                "X509-SVIDs and X.509 bundles are served here, nothing else",
            ),
        }
    }

    fn stream(&self, part: fn(&Page) -> Bytes) -> Response<Answer> {
        let (frames, waiting) = mpsc::channel(1);
        self.tasks.start(push(self.pages.clone(), part, frames));
        let mut response = Response::new(Either::Left(Frames(waiting)));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
        response
    }
}

type Answer = Either<Frames, Empty<Bytes>>;

/// Sends `part` of the newest page at once, and again whenever it is another one.
async fn push(
    mut pages: watch::Receiver<Arc<Page>>,
    part: fn(&Page) -> Bytes,
    frames: mpsc::Sender<Frame<Bytes>>,
) {
    let mut last = Bytes::new();
    loop {
        let next = part(&pages.borrow_and_update());
        if next != last {
            last = next.clone();
            if frames.send(Frame::data(next)).await.is_err() {
                return;
            }
        }
        let is_over = tokio::select! {
            changed = pages.changed() => changed.is_err(),
            () = frames.closed() => return,
        };
        if is_over {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(UNAVAILABLE));
            trailers.insert(
                "grpc-message",
                HeaderValue::from_static("the node is leaving"),
            );
            // The program may have gone first.
            drop(frames.send(Frame::trailers(trailers)).await);
            return;
        }
    }
}

/// What a stream sends, as it comes.
struct Frames(mpsc::Receiver<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        waiter: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(waiter).map(|frame| frame.map(Ok))
    }
}

/// An answer without messages.
fn end(status: &'static str, message: &'static str) -> Response<Answer> {
    let mut response = Response::new(Either::Right(Empty::new()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert("grpc-status", HeaderValue::from_static(status));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    response
}

const GRPC: &str = "application/grpc";
const SECURITY_HEADER: &str = "workload.spiffe.io";
const INVALID_ARGUMENT: &str = "3";
const PERMISSION_DENIED: &str = "7";
const UNIMPLEMENTED: &str = "12";
const UNAVAILABLE: &str = "14";
/// Programs of one service: few, each with one connection.
const MAX_CONNECTIONS: usize = 64;
/// Programs that may not ask, and are told so.
const MAX_STRANGERS: usize = 8;
const STRANGER: Duration = Duration::from_secs(5);
const MAX_STREAMS: u32 = 16;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// A program that hangs gives its place back.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
