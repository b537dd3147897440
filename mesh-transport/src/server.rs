//! Serving HTTP/1.1 and HTTP/2 on one accepted connection, with limits and drain.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use crate::body::Body;
use crate::coalesce::Coalesce;
use crate::drain::Drain;
use crate::drain::Phase;
use crate::tasks::Tasks;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1, as ALPN said.
    Http1,
    /// HTTP/2, as ALPN said.
    Http2,
    /// HTTP/2 where the connection preface says so, else HTTP/1.1.
    Detect,
}

impl Protocol {
    /// The one that a peer over TLS agreed on by ALPN, as [`TlsConnection::alpn_protocol`] gives it. A peer that offered
    /// only others was refused in the handshake; who offered none is taken where ALPN is not required, and what it speaks
    /// is found out.
    ///
    /// [`TlsConnection::alpn_protocol`]: rustls::CommonState::alpn_protocol
    pub fn agreed(alpn: Option<&[u8]>, is_required: bool) -> Option<Self> {
        match alpn {
            Some(b"h2") => Some(Self::Http2),
            Some(b"http/1.1") => Some(Self::Http1),
            None if !is_required => Some(Self::Detect),
            _ => None,
        }
    }
}

/// Limits of one connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Streams that a peer may have open at once on an HTTP/2 connection. Default 512.
    pub max_concurrent_streams: u32,
    /// The largest header block taken, in bytes. Default 64 KiB.
    pub max_header_bytes: u32,
    /// The longest that a client may take to send a request's header over HTTP/1.1. Default 15 s.
    pub header_timeout: Duration,
    /// Bytes that may be in flight towards us on one stream. Default 1 MiB.
    pub stream_window_bytes: u32,
    /// Bytes that may be in flight towards us on one connection. Default 4 MiB.
    pub connection_window_bytes: u32,
    /// How often a silent HTTP/2 connection is asked whether it is still there. Default 30 s.
    pub keep_alive_interval: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 512,
            max_header_bytes: 64 * 1024,
            header_timeout: Duration::from_secs(15),
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            keep_alive_interval: KEEP_ALIVE_INTERVAL,
        }
    }
}

/// Serves connections with one set of limits.
#[derive(Clone, Debug)]
pub struct Server {
    builder: auto::Builder<Tasks>,
}

impl Server {
    /// A server whose streams run on `tasks`.
    pub fn new(config: &ServerConfig, tasks: Tasks) -> Self {
        let mut builder = auto::Builder::new(tasks);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .max_buf_size((config.max_header_bytes as usize).max(MIN_H1_BUFFER))
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_concurrent_streams)
            .max_header_list_size(config.max_header_bytes)
            .initial_stream_window_size(config.stream_window_bytes)
            .initial_connection_window_size(config.connection_window_bytes)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(config.keep_alive_interval);
        Self { builder }
    }

    /// Serves one connection to its end. Once draining begins it finishes what is in flight and closes.
    pub async fn serve<Io, S>(&self, io: Io, protocol: Protocol, service: S, drain: Drain)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Send
            + 'static,
        S::Future: Future + Send + 'static,
    {
        let never = std::future::pending::<()>();
        self.serve_until((io, protocol), service, drain, never)
            .await;
    }

    /// Serves one connection as [`Self::serve`] does, and no longer than until `over`: then the peer is told to go
    /// elsewhere, and five seconds later the connection is closed whatever is in flight.
    pub async fn serve_until<Io, S, T>(
        &self,
        (io, protocol): (Io, Protocol),
        service: S,
        mut drain: Drain,
        over: impl Future<Output = T>,
    ) where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Send
            + 'static,
        S::Future: Future + Send + 'static,
    {
        let builder = match protocol {
            Protocol::Http1 => self.builder.clone().http1_only(),
            Protocol::Http2 => self.builder.clone().http2_only(),
            Protocol::Detect => self.builder.clone(),
        };
        // Peers over HTTP/2 are told at once and go elsewhere without loss; a client over HTTP/1.1 could lose a
        // request that crosses our close, so it is only told in its next answer until draining begins. Who comes while
        // we are leaving has nowhere else to go, or will see soon enough.
        let is_told_at_once = protocol == Protocol::Http2 && drain.phase() < Phase::Leaving;
        let leave_at = if is_told_at_once {
            Phase::Leaving
        } else {
            Phase::Draining
        };
        let io = TokioIo::new(Coalesce::new(io, protocol == Protocol::Http2));
        let mut connection = pin!(builder.serve_connection(io, service));
        let leave = async {
            drain.reached(leave_at).await;
            // A client that has just connected has its request on the way; closing now would lose it.
            if protocol != Protocol::Http2 {
                tokio::time::sleep(ARRIVAL).await;
            }
        };
        let (mut leave, mut over) = (pin!(leave), pin!(over));
        let mut is_leaving = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = leave.as_mut(), if !is_leaving => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = over.as_mut() => {
                    connection.as_mut().graceful_shutdown();
                    break match tokio::time::timeout(LAST_WORDS, connection).await {
                        Ok(ended) => ended,
                        Err(elapsed) => Err(elapsed.into()),
                    };
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// Four times what a 1 KiB call needs at 256 in flight, and enough for 4 MiB messages to flow without stalls.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A request follows its connection within a round trip, so this is long enough, and short enough for a restart.
const ARRIVAL: Duration = Duration::from_millis(200);
/// What is in flight with a peer that is not vouched for any more has this long: time for an answer, none for a deed.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// What one stream may hold for a peer that does not read: a few frames, so that many such streams cost little (threat 37).
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// hyper takes no smaller buffer for HTTP/1.1.
const MIN_H1_BUFFER: usize = 8 * 1024;
