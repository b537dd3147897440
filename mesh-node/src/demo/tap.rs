//! Recorders on a wire: what went over it, byte by byte.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_transport::tasks::Tasks;
use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// A relay that hands every byte on, both ways, and keeps a copy.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) address: SocketAddr,
    listener: Option<TcpListener>,
    recording: Arc<Recording>,
}

/// The bytes of both directions, each in its order.
#[derive(Debug, Default)]
pub(super) struct Recording {
    there: Mutex<Vec<u8>>,
    back: Mutex<Vec<u8>>,
}

impl Tap {
    /// Listens on a free port of loopback; [`Tap::run`] says where bytes go.
    pub(super) async fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener: Some(listener),
            recording: Arc::default(),
        })
    }

    /// What has passed so far.
    pub(super) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Relays connections to `destination`.
    pub(super) fn run(&mut self, destination: SocketAddr, tasks: &Tasks) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let (recording, inner) = (Arc::clone(&self.recording), tasks.clone());
        tasks.start(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let recording = Arc::clone(&recording);
                inner.start(async move {
                    match TcpStream::connect(destination).await {
                        Ok(onward) => relay(stream, onward, &recording).await,
                        Err(error) => tracing::debug!(%error, "nobody listens behind a recorder"),
                    }
                });
            }
        });
    }
}

impl Recording {
    /// How many bytes have passed, both ways together.
    pub(super) fn len(&self) -> usize {
        self.there.lock().len() + self.back.lock().len()
    }

    /// Whether the recording has all that passed.
    pub(super) fn is_whole(&self) -> bool {
        self.there.lock().len() < MAX_RECORDED_BYTES && self.back.lock().len() < MAX_RECORDED_BYTES
    }

    /// How often `text` stands in it.
    pub(super) fn count(&self, text: &str) -> usize {
        count(&self.there.lock(), text.as_bytes()) + count(&self.back.lock(), text.as_bytes())
    }

    /// The last `bytes` bytes of the way there.
    pub(super) fn last_there(&self, bytes: usize) -> Vec<u8> {
        let there = self.there.lock();
        let start = there.len().saturating_sub(bytes);
        there.get(start..).unwrap_or_default().to_vec()
    }

    /// Everything: the way there, then the way back.
    pub(super) fn all(&self) -> Vec<u8> {
        [&**self.there.lock(), &**self.back.lock()].concat()
    }
}

async fn relay(near: TcpStream, far: TcpStream, recording: &Recording) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = pass(near_read, far_write, &recording.there);
    let back = pass(far_read, near_write, &recording.back);
    let (there, back) = tokio::join!(there, back);
    for error in [there, back].into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a recorded connection broke off");
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    copy: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await;
        let bytes = match &read {
            Ok(count) => buffer.get(..*count).unwrap_or_default(),
            Err(_) => &[],
        };
        if bytes.is_empty() {
            to.shutdown().await?;
            return read.map(|_| ());
        }
        {
            let mut copy = copy.lock();
            let room = MAX_RECORDED_BYTES.saturating_sub(copy.len());
            copy.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

/// How often `text` stands in `bytes`.
pub(super) fn count(bytes: &[u8], text: &[u8]) -> usize {
    bytes
        .windows(text.len().max(1))
        .filter(|window| *window == text)
        .count()
}

/// `bytes` as hex and text, sixteen a line.
pub(super) fn hex_dump(bytes: &[u8]) -> Vec<String> {
    let lines = bytes.chunks(16).enumerate().map(|(line, chunk)| {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = chunk
            .iter()
            .map(|byte| match byte {
                0x20..=0x7e => char::from(*byte),
                _ => '.',
            })
            .collect();
        format!("{:04x}  {:<47}  |{text}|", line * 16, hex.join(" "))
    });
    lines.collect()
}

/// The demonstration sends a few kilobytes; whoever stays and sends more is not recorded without end.
const MAX_RECORDED_BYTES: usize = 4 << 20;
const BUFFER_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_found_wherever_it_stands() {
        assert_eq!(count(b"abcabcab", b"abc"), 2);
        assert_eq!(count(b"ab", b"abc"), 0);
        assert_eq!(
            hex_dump(b"GET /\n")[0].trim_end(),
            format!("0000  {:<47}  |GET /.|", "47 45 54 20 2f 0a")
        );
    }

    #[tokio::test]
    async fn both_directions_pass_and_are_recorded() {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut tap = Tap::bind().await.unwrap();
        tap.run(echo.local_addr().unwrap(), &tasks);
        let mut near = TcpStream::connect(tap.address).await.unwrap();
        near.write_all(b"ping").await.unwrap();
        near.shutdown().await.unwrap();
        let (mut far, _) = echo.accept().await.unwrap();
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        far.write_all(b"pong").await.unwrap();
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("ping", "pong"));
        assert_eq!(
            (tap.recording().count("ping"), tap.recording().count("pong")),
            (1, 1)
        );
        assert_eq!(tap.recording().len(), 8);
    }
}
