//! A wire that is slow: each piece arrives later by a random time, at no more than some rate, and in order.

use std::io;
use std::time::Duration;

use mesh_resilience::random::Random as _;
use mesh_resilience::random::SplitMix64;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What befalls each piece, of [`PIECE`] bytes at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Toxic {
    /// How long every piece takes in one direction.
    pub(crate) latency: Duration,
    /// And up to how much longer, of which each draws its own.
    pub(crate) jitter: Duration,
    /// Of a hundred pieces so many are late by [`RETRANSMIT`], as when a packet is lost and sent again.
    pub(crate) lost: usize,
    /// The time that a piece occupies the wire.
    pub(crate) occupies: Duration,
}

/// A relay on a port of its own, for as long as it lives.
#[derive(Debug)]
pub(crate) struct SlowWire {
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl SlowWire {
    pub(crate) fn start(runtime: &Runtime, seed: u64, to: u16, toxic: Toxic) -> Self {
        let _entered = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        let random = SplitMix64::new(seed);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else {
                    continue;
                };
                let (near, far) = (near.into_split(), far.into_split());
                for (from, to) in [(near.0, far.1), (far.0, near.1)] {
                    let random = SplitMix64::new(random.next_u64());
                    let (sender, receiver) = mpsc::channel(WINDOW);
                    ways.spawn(async move { drop(take(from, sender, random, toxic).await) });
                    ways.spawn(async move { drop(give(to, receiver).await) });
                }
                while ways.try_join_next().is_some() {}
            }
        });
        Self {
            port,
            _tasks: tasks,
        }
    }
}

/// Reads pieces and says when each is due.
async fn take(
    mut from: OwnedReadHalf,
    to: mpsc::Sender<(Instant, Vec<u8>)>,
    random: SplitMix64,
    toxic: Toxic,
) -> io::Result<()> {
    let (mut buffer, mut free_at) = (vec![0; PIECE], Instant::now());
    loop {
        let read = from.read(&mut buffer).await?;
        let mut late = toxic.latency + toxic.jitter.mul_f64(random.unit());
        if random.below(100) < toxic.lost {
            late += RETRANSMIT;
        }
        free_at = free_at.max(Instant::now()) + toxic.occupies;
        let piece = buffer.get(..read).unwrap_or_default().to_vec();
        // The end passes too, as an empty one.
        if to.send((free_at + late, piece)).await.is_err() || read == 0 {
            return Ok(());
        }
    }
}

async fn give(
    mut to: OwnedWriteHalf,
    mut from: mpsc::Receiver<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    while let Some((due, piece)) = from.recv().await {
        tokio::time::sleep_until(due).await;
        if piece.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&piece).await?;
    }
    Ok(())
}

/// As of a packet.
const PIECE: usize = 1400;
/// Pieces on the wire at a time.
const WINDOW: usize = 64;
/// The shortest of Linux (`TCP_RTO_MIN`).
const RETRANSMIT: Duration = Duration::from_millis(200);
