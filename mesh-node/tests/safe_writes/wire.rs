//! A wire that breaks: each connection is reset after a random number of bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use mesh_resilience::random::Random as _;
use mesh_resilience::random::SplitMix64;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// A relay on a port of its own, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) port: u16,
    resets: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Wire {
    /// Relays to `to`; a connection carries up to `most` bytes, in both directions together.
    pub(crate) fn start(runtime: &Runtime, seed: u64, to: u16, most: usize) -> Self {
        let _entered = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        let random = SplitMix64::new(seed);
        let resets = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&resets);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (left, counted) = (random.below(most), Arc::clone(&counted));
                connections.spawn(async move {
                    if relay(near, to, left).await.unwrap_or_default() {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            port,
            resets,
            _tasks: tasks,
        }
    }

    /// How many connections were reset.
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }
}

/// Gives whether it was reset, and not ended by its ends.
async fn relay(mut near: TcpStream, to: u16, mut left: usize) -> io::Result<bool> {
    let mut far = TcpStream::connect(("127.0.0.1", to)).await?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_zero_linger()?;
    }
    let (mut there, mut back) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    while left > 0 {
        let (read, piece, to) = tokio::select! {
            read = near.read(&mut there) => (read?, &there, &mut far),
            read = far.read(&mut back) => (read?, &back, &mut near),
        };
        if read == 0 {
            return Ok(false);
        }
        let passes = read.min(left);
        to.write_all(piece.get(..passes).unwrap_or_default())
            .await?;
        left -= passes;
    }
    Ok(true)
}
