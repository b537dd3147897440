//! Opening connections: TCP with a deadline, and the settings that every HTTP/2 client here shares.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::error::BoxError;
use crate::error::Error;
use crate::server::CONNECTION_WINDOW_BYTES;
use crate::server::KEEP_ALIVE_INTERVAL;
use crate::server::STREAM_WINDOW_BYTES;
use crate::tasks::Tasks;

/// Failed attempts at something that several callers wait for. Who waited while one failed gets its error, in place of
/// an attempt of its own that would take as long: else callers of a dead endpoint would wait in a row.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<(u64, Option<Error>)>);

impl Failures {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().0
    }

    /// The last one, where there were more than `count`.
    pub(crate) fn since(&self, count: u64) -> Option<Error> {
        let last = self.0.lock();
        last.1
            .as_ref()
            .filter(|_| last.0 > count)
            .map(Error::repeat)
    }

    /// One more.
    pub(crate) fn note(&self, error: &Error) {
        let mut last = self.0.lock();
        *last = (last.0 + 1, Some(error.repeat()));
    }
}

/// Says where the name of a destination may lead. An address that stands there itself is not asked about: whoever wrote it
/// down meant it.
pub trait JudgeAddress: fmt::Debug + Send + Sync {
    /// Looks at an address that a name led to, before it is connected to.
    ///
    /// # Errors
    ///
    /// Why it must not be.
    fn judge(&self, address: SocketAddr) -> Result<(), BoxError>;
}

/// Connects to `destination` (host and port; a name is looked up, and leads where `judge` lets it), within `timeout`.
///
/// # Errors
///
/// [`Error::Connect`].
pub(crate) async fn tcp(
    destination: &str,
    timeout: Duration,
    judge: Option<&dyn JudgeAddress>,
) -> Result<TcpStream, Error> {
    let refused = |source: io::Error| Error::Connect {
        destination: destination.to_owned(),
        source: Box::new(source),
    };
    let stream = tokio::time::timeout(timeout, connect(destination, judge)).await;
    let stream = stream
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {timeout:?}"),
            ))
        })
        .map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    Ok(stream)
}

async fn connect(destination: &str, judge: Option<&dyn JudgeAddress>) -> io::Result<TcpStream> {
    let Some(judge) = judge.filter(|_| destination.parse::<SocketAddr>().is_err()) else {
        return TcpStream::connect(destination).await;
    };
    let mut failure = None;
    // One after the other, in the order of the system's resolver (RFC 6724).
    for address in tokio::net::lookup_host(destination).await? {
        if let Err(refused) = judge.judge(address) {
            failure = Some(io::Error::other(refused));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")))
}

pub(crate) fn h2_client(tasks: &Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        // Until the peer's settings arrive; it may lower this.
        .initial_max_send_streams(INITIAL_STREAMS);
    builder
}

const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const INITIAL_STREAMS: usize = 100;
