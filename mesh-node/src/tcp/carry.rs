//! Bytes both ways, counted as they pass.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::telemetry::TcpSeries;

/// Bytes that one connection has carried.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// The application's side of a connection, which no TLS protects. It is reset when this is dropped, unless all of it was
/// carried: an application that reads to the end must not take half a stream for a whole one (threat 25).
#[derive(Debug)]
pub(super) struct Plain {
    stream: TcpStream,
    is_whole: bool,
}

impl Plain {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            is_whole: false,
        }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Lets it be closed in good order, if nothing went wrong.
    pub(super) fn end<E>(&mut self, error: Option<&E>) {
        self.is_whole = error.is_none();
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if !self.is_whole
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::warn!(%error, "could not reset a connection of the application, which may take it for ended");
        }
    }
}

/// Copies between `near`, the caller, and `far` until both have ended; who ends first is ended on the other side, which may
/// go on.
/// An error ends both.
pub(super) async fn carry<A, B>(
    near: A,
    mut far: B,
    counts: (&TcpSeries, &Carried),
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut near = Counted {
        stream: near,
        series: counts.0,
        carried: counts.1,
    };
    tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES)
        .await
        .map(drop)
}

/// The caller's side of a connection.
struct Counted<'a, S> {
    stream: S,
    series: &'a TcpSeries,
    carried: &'a Carried,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        this.series.received.inc_by(read);
        this.carried.received.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.series.sent.inc_by(written as u64);
        let sent = &this.carried.sent;
        sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// What each direction holds: one record of TLS (RFC 8446 section 5.1).
const BUFFER_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::telemetry::Ends;
    use crate::telemetry::Telemetry;

    #[tokio::test]
    async fn a_side_that_ends_is_ended_on_the_other_which_may_go_on() {
        let telemetry = Telemetry::new();
        let ends = Ends {
            reporter: "destination",
            source: Arc::from("a"),
            source_principal: Arc::from("a"),
            destination: Arc::from("b"),
            destination_principal: Arc::from("b"),
            security: "mutual_tls",
        };
        let series = telemetry.tcp.of(&ends);
        let (mut caller, near) = tokio::io::duplex(64);
        let (far, mut answerer) = tokio::io::duplex(64);
        let carried = Carried::default();
        let both = carry(near, far, (&series, &carried));
        let talk = async move {
            caller.write_all(b"question").await.unwrap();
            caller.shutdown().await.unwrap();
            let mut heard = String::new();
            answerer.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "question");
            answerer.write_all(b"a longer answer").await.unwrap();
            drop(answerer);
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "a longer answer");
        };
        let (done, ()) = tokio::join!(both, talk);
        done.unwrap();
        assert_eq!(carried.received.into_inner(), 8);
        assert_eq!((series.received.get(), series.sent.get()), (8, 15));
    }
}
