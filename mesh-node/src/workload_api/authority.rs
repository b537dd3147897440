//! What clients of gRPC's C core (Python, C++, Ruby) need over a Unix socket.
//!
//! They send the socket's path as `:authority`, percent-encoded (`tmp%2Fagent.sock`). RFC 3986 section 3.2.2 allows that
//! in a host, but the HTTP library here refuses it with `PROTOCOL_ERROR`, before any of our code is asked. Nothing here
//! looks at the authority, so every `%` (and `/`) in one becomes a `.` as it is read: the length stays, and with it the frame and
//! the header block. These clients write the header's name and value out, without Huffman coding, once on a connection;
//! in what others send nothing is found to change. A client that puts the same bytes into a message changes its own.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

/// A connection whose first bytes are made readable.
pub(super) struct Readable<S> {
    stream: S,
    finder: Finder,
}

impl<S> Readable<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            finder: Finder::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Readable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        waiter: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(waiter, buffer))?;
        for byte in buffer.filled_mut().iter_mut().skip(before) {
            *byte = self.finder.next(*byte);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Readable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        waiter: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(waiter, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, waiter: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(waiter)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waiter: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(waiter)
    }
}

/// Finds the authority in a stream of bytes, however that is cut into pieces.
#[derive(Debug, Default)]
struct Finder {
    /// How much of [`NAME`] has just passed.
    matched: usize,
    /// How much of the value is still to come.
    left: u8,
}

impl Finder {
    fn next(&mut self, byte: u8) -> u8 {
        if self.left > 0 {
            self.left -= 1;
            return if matches!(byte, b'%' | b'/') {
                b'.'
            } else {
                byte
            };
        }
        if self.matched == NAME.len() {
            self.matched = 0;
            // With the first bit it would be Huffman coded; 127 means that more of the length follows (RFC 7541, 5.1).
            if byte < 127 {
                self.left = byte;
            }
            return byte;
        }
        self.matched = match NAME.get(self.matched) {
            Some(expected) if *expected == byte => self.matched + 1,
            // The name's first byte stands nowhere else in it.
            _ => usize::from(NAME.first() == Some(&byte)),
        };
        byte
    }
}

/// A literal header field that is added to the table, with its name written out (RFC 7541, section 6.2.1).
const NAME: &[u8] = b"\x40\x0a:authority";

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bytes: &[u8]) -> Vec<u8> {
        let mut finder = Finder::default();
        bytes.iter().map(|byte| finder.next(*byte)).collect()
    }

    #[test]
    fn a_percent_in_an_authority_becomes_a_dot_and_nothing_else_changes() {
        let sent = b"a%b@@\n:authority\x11tmp%2Fh2dump.sock%40@\n:authoritx\x01%";
        let expected = b"a%b@@\n:authority\x11tmp.2Fh2dump.sock%40@\n:authoritx\x01%";
        assert_eq!(passed(sent), expected);
    }

    #[test]
    fn a_value_that_is_huffman_coded_or_long_is_left_alone() {
        for length in [127, 0x8c] {
            let sent = [NAME, &[length], b"%%%"].concat();
            assert_eq!(passed(&sent), sent);
        }
    }
}
