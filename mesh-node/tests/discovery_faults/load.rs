//! Calls at a fixed rate, whatever becomes of those before, and applications that note when each reaches them.

use std::io;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// An application: answers every request of HTTP/1.1 at once.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) port: u16,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    _tasks: JoinSet<()>,
}

impl App {
    /// Serves in `runtime`, for as long as this lives.
    pub(crate) fn start(runtime: &Runtime) -> Self {
        let _entered = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&arrivals);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                connections.spawn(async move { answer(stream, &noted).await.unwrap_or_default() });
            }
        });
        Self {
            port,
            arrivals,
            _tasks: tasks,
        }
    }

    /// How many requests reached it.
    pub(crate) fn count(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }

    /// When the first request reached it after `since`, and when the last one did.
    pub(crate) fn between(&self, since: Instant) -> Option<(Instant, Instant)> {
        let arrivals = self.arrivals.lock().unwrap();
        let mut after = arrivals.iter().filter(|at| **at >= since);
        let first = *after.next()?;
        Some((first, *after.next_back().unwrap_or(&first)))
    }
}

async fn answer(mut stream: TcpStream, arrivals: &Mutex<Vec<Instant>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.clear();
        arrivals.lock().unwrap().push(Instant::now());
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
            .await?;
    }
}

/// What became of the calls of some time.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) made: usize,
    /// What each that was not answered with 200 got.
    pub(crate) failed: Vec<String>,
    /// From the moment when each was due to its answer, the shortest first.
    took: Vec<Duration>,
}

impl Calls {
    pub(crate) fn quantile(&self, per_cent: usize) -> Duration {
        quantile(&self.took, per_cent)
    }

    /// Fails with the first calls that did.
    #[track_caller]
    pub(crate) fn assert_none_failed(&self) {
        let some: Vec<_> = self.failed.iter().take(SHOWN).collect();
        assert!(
            some.is_empty(),
            "{} failed, as {some:#?}",
            self.failed.len()
        );
    }
}

/// Of a sorted list.
pub(crate) fn quantile(sorted: &[Duration], per_cent: usize) -> Duration {
    let at = (sorted.len() * per_cent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// Calls to a service through the node of its caller.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<Mutex<Calls>>,
    ticking: JoinSet<()>,
}

impl Load {
    /// `per_second` calls each second. Each takes a connection that is free, or a new one.
    pub(crate) fn start(runtime: &Runtime, outbound: u16, per_second: u32) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            calls: Arc::default(),
            ticking: JoinSet::new(),
        };
        let (stop, calls) = (Arc::clone(&load.stop), Arc::clone(&load.calls));
        let ticks = async move {
            let free = Arc::new(Mutex::new(Vec::new()));
            let mut under_way = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
            while !stop.load(Ordering::Relaxed) {
                // Ticks that were missed follow at once: the rate stays, and a call counts from when it was due.
                let due = ticks.tick().await;
                let (free, calls) = (Arc::clone(&free), Arc::clone(&calls));
                under_way.spawn(async move {
                    let outcome = tokio::time::timeout(PATIENCE, call(outbound, &free)).await;
                    let outcome = outcome.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
                    let mut calls = calls.lock().unwrap();
                    calls.made += 1;
                    match outcome {
                        Ok(()) => calls.took.push(due.elapsed()),
                        Err(error) => calls.failed.push(error.to_string()),
                    }
                });
                while under_way.try_join_next().is_some() {}
            }
            under_way.join_all().await;
        };
        load.ticking.spawn_on(ticks, runtime.handle());
        load
    }

    /// How many calls have ended.
    pub(crate) fn made(&self) -> usize {
        self.calls.lock().unwrap().made
    }

    /// Makes no more calls, waits for those under way, and tells of all.
    pub(crate) fn stop(self, runtime: &Runtime) -> Calls {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(self.ticking.join_all());
        let mut calls = std::mem::take(&mut *self.calls.lock().unwrap());
        calls.took.sort();
        calls
    }
}

async fn call(outbound: u16, free: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let mut stream = match open(free) {
        Some(stream) => stream,
        None => TcpStream::connect(("127.0.0.1", outbound)).await?,
    };
    stream.set_nodelay(true)?;
    stream
        .write_all(b"GET /steady HTTP/1.1\r\nhost: order-service\r\n\r\n")
        .await?;
    let mut buffer = Vec::new();
    while !(buffer.ends_with(b"\r\n\r\ndone") || buffer.ends_with(b"}\n")) {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    if !buffer.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(String::from_utf8_lossy(&buffer)));
    }
    free.lock().unwrap().push(stream);
    Ok(())
}

/// A connection that is free, and that the node has not closed meanwhile because it was free for too long.
fn open(free: &Mutex<Vec<TcpStream>>) -> Option<TcpStream> {
    loop {
        let stream = free.lock().unwrap().pop()?;
        let nothing = stream.try_read(&mut [0]).map_err(|error| error.kind());
        if nothing == Err(ErrorKind::WouldBlock) {
            return Some(stream);
        }
    }
}

const SHOWN: usize = 3;
/// Beyond every time limit of a node.
const PATIENCE: Duration = Duration::from_mins(1);
