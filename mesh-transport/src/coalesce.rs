//! One write for all that a turn of an HTTP/2 connection has to say.
//!
//! The HTTP/2 library flushes after each frame with more than 255 bytes of data. With TLS below, each flush is a TLS
//! record and a system call, which with 64 small calls in flight costs more than all the rest of a call. Here a flush
//! asks for one more turn of the connection's task, and what was said until then goes out at once.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::sync::oneshot;

/// A connection that gathers writes until the task that made them has its next turn, which it asks for itself.
///
/// Good only below something that reads in each of its turns, as HTTP/2 does. Nothing is kept for longer than that:
/// whoever stops reading is flushed as asked after some time, and shutting down flushes first.
#[derive(Debug)]
pub(crate) struct Coalesce<Io> {
    io: Io,
    /// Empty and without memory while nothing is to be said.
    gathered: BytesMut,
    /// Flushes that were put off since the last read.
    put_off: u32,
    is_on: bool,
    /// The connection is cut, whatever is in flight, once the other end is dropped. Whoever holds that is told by it
    /// when the connection is gone.
    cut: Option<oneshot::Receiver<()>>,
}

impl<Io: AsyncWrite + Unpin> Coalesce<Io> {
    /// Gathers where `is_on`; else it passes on everything at once.
    pub(crate) fn new(io: Io, is_on: bool) -> Self {
        Self {
            io,
            gathered: BytesMut::new(),
            put_off: 0,
            is_on,
            cut: None,
        }
    }

    /// The same, but it fails once the other end of `cut` is dropped.
    pub(crate) fn with_cut(self, cut: oneshot::Receiver<()>) -> Self {
        let cut = Some(cut);
        Self { cut, ..self }
    }

    /// An error where the connection was cut; else it is noticed when it is.
    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let cut = self.cut.as_mut();
        if cut.is_some_and(|cut| cut.is_terminated() || Pin::new(cut).poll(cx).is_ready()) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        self.gathered = BytesMut::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesce<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.put_off > 0 {
            // A peer that takes nothing for now is no reason not to hear what it says.
            if let Poll::Ready(drained) = self.poll_drain(cx) {
                drained?;
                self.put_off = 0;
            }
        }
        self.check_cut(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Coalesce<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_on {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        let len = bufs
            .iter()
            .fold(0_usize, |sum, buf| sum.saturating_add(buf.len()));
        if len > ROOM.saturating_sub(self.gathered.len()) {
            ready!(self.poll_drain(cx))?;
        }
        if len > ROOM / 2 {
            // Not worth a copy.
            ready!(self.poll_drain(cx))?;
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(ROOM);
        }
        for buf in bufs {
            self.gathered.extend_from_slice(buf);
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() || self.put_off >= PATIENCE {
            return self.poll_drain(cx);
        }
        if self.put_off == 0 {
            cx.waker().wake_by_ref();
        }
        self.put_off += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What one TLS record holds (RFC 8446 section 5.1).
const ROOM: usize = 16 * 1024;
/// More flushes than a turn has, so that nothing stays for ever above something that does not read.
const PATIENCE: u32 = 1_024;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_flushed_goes_out_at_once_in_the_next_turn() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut near = Coalesce::new(near, true);
        for _ in 0..3 {
            near.write_all(b"frame").await.unwrap();
            near.flush().await.unwrap();
        }
        let (mut early, mut heard) = ([0; 1], [0; 64]);
        let len = tokio::select! {
            biased;
            _ = near.read(&mut early) => 0,
            len = far.read(&mut heard) => len.unwrap(),
        };
        assert_eq!(heard.get(..len), Some(&b"frameframeframe"[..]));
    }

    #[tokio::test]
    async fn nothing_is_lost_or_reordered_whatever_the_sizes() {
        for room in [10, 5_000, 1 << 20] {
            let (near, mut far) = tokio::io::duplex(room);
            let mut near = Coalesce::new(near, true);
            let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_be_bytes()[3]).collect();
            let writing = async {
                let mut rest = &sent[..];
                for size in (1..).map(|n: usize| n * n % 20_011 + 1) {
                    let (now, later) = rest.split_at(size.min(rest.len()));
                    near.write_all(now).await.unwrap();
                    near.flush().await.unwrap();
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                near.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let (_, ()) = tokio::join!(far.read_to_end(&mut heard), writing);
            assert!(heard == sent, "{room}");
        }
    }

    #[tokio::test]
    async fn flushes_are_heard_even_where_nobody_reads() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut near = Coalesce::new(near, true);
        near.write_all(b"frame").await.unwrap();
        for _ in 0..=PATIENCE {
            near.flush().await.unwrap();
        }
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"frame");
    }
}
