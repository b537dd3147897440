//! Steady calls through both nodes, and an application that answers them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Answers every request of HTTP/1.1 at once, until the set is dropped.
pub(crate) async fn serve(tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move { answer(stream).await.unwrap_or_default() });
        }
    });
    port
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.clear();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
            .await?;
    }
}

/// What became of the calls of some time.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) failed: Vec<String>,
    /// How long each took, the shortest first.
    pub(crate) took: Vec<Duration>,
}

impl Calls {
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a short list"
        )]
        let at = (self.took.len() as f64 * share) as usize;
        self.took.get(at).copied().unwrap_or_default()
    }
}

/// Connections to a node that call all the time.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    /// Has a permit for each caller that was answered.
    answered: Arc<Semaphore>,
    number: u32,
    callers: JoinSet<Calls>,
}

impl Load {
    /// `callers` connections, each with a call every `pause`, or one behind the other where that is nothing.
    pub(crate) fn start(outbound: u16, callers: u32, pause: Duration) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answered: Arc::new(Semaphore::new(0)),
            number: callers,
            callers: JoinSet::new(),
        };
        for index in 0..callers {
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            load.callers.spawn(async move {
                tokio::time::sleep(pause * index / callers).await;
                let mut calls = Calls::default();
                if let Err(error) = call(outbound, pause, (&stop, &answered), &mut calls).await {
                    calls.failed.push(error.to_string());
                }
                calls
            });
        }
        load
    }

    /// Waits until each caller is connected and was answered once.
    pub(crate) async fn has_begun(&self) {
        let answered = self.answered.acquire_many(self.number);
        let answered = tokio::time::timeout(Duration::from_secs(20), answered).await;
        answered.unwrap().unwrap().forget();
    }

    /// Lets the calls under way end, and tells of all.
    pub(crate) async fn stop(self) -> Calls {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Calls::default();
        for calls in self.callers.join_all().await {
            all.failed.extend(calls.failed);
            all.took.extend(calls.took);
        }
        all.took.sort();
        all
    }
}

async fn call(
    outbound: u16,
    pause: Duration,
    (stop, answered): (&AtomicBool, &Semaphore),
    calls: &mut Calls,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", outbound)).await?;
    stream.set_nodelay(true)?;
    let mut next = Instant::now();
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(next).await;
        next += pause;
        let start = Instant::now();
        stream
            .write_all(b"GET /steady HTTP/1.1\r\nhost: order-service\r\n\r\n")
            .await?;
        buffer.clear();
        while !(buffer.ends_with(b"\r\n\r\ndone") || buffer.ends_with(b"}\n")) {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        if buffer.starts_with(b"HTTP/1.1 200 ") {
            if calls.took.is_empty() {
                answered.add_permits(1);
            }
            calls.took.push(start.elapsed());
        } else {
            calls
                .failed
                .push(String::from_utf8_lossy(&buffer).into_owned());
        }
    }
    Ok(())
}
