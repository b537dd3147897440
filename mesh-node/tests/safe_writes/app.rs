//! An application that writes down each execution, and that crashes at any point of a request.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use mesh_resilience::random::Random as _;
use mesh_resilience::random::SplitMix64;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A server of HTTP/1.1 whose executions outlive its crashes.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) port: u16,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    /// How often each body was executed.
    executed: Mutex<HashMap<String, u32>>,
    random: SplitMix64,
    /// One request in so many crashes it; 0 is never.
    crashes: usize,
    crash: Notify,
}

impl App {
    /// Serves in `runtime`, for as long as this lives.
    pub(crate) fn start(runtime: &Runtime, seed: u64, crashes: usize) -> Self {
        let _entered = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let state = Arc::new(State {
            executed: Mutex::default(),
            random: SplitMix64::new(seed),
            crashes,
            crash: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, port, Arc::clone(&state)));
        Self {
            port,
            state,
            _tasks: tasks,
        }
    }

    /// How often each body was executed.
    pub(crate) fn executed(&self) -> HashMap<String, u32> {
        self.state.executed.lock().unwrap().clone()
    }
}

async fn serve(mut listener: TcpListener, port: u16, state: Arc<State>) {
    loop {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.unwrap();
                    let state = Arc::clone(&state);
                    connections.spawn(async move { answer(stream, &state).await.unwrap_or_default() });
                }
                () = state.crash.notified() => break,
            }
        }
        // All that runs stops where it is, and for a moment nobody listens.
        drop(listener);
        connections.shutdown().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        listener = loop {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let at = state.point();
        let Some(body) = read(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        state.reach(at, 0).await;
        *state
            .executed
            .lock()
            .unwrap()
            .entry(body.clone())
            .or_default() += 1;
        state.reach(at, 1).await;
        let pause = Duration::from_micros(state.random.below(5_000) as u64);
        tokio::time::sleep(pause).await;
        state.reach(at, 2).await;
        let text = format!("done {body}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        let (first, rest) = answer.as_bytes().split_at(state.random.below(answer.len()));
        stream.write_all(first).await?;
        state.reach(at, 3).await;
        stream.write_all(rest).await?;
    }
}

/// The body of the next request; none where there is no further one.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(!head.contains("x-mesh-once"), "{head}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            if body.len() >= length {
                let body = body.get(..length).unwrap().to_owned();
                buffer.drain(..head.len() + 4 + length);
                return Ok(Some(body));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

impl State {
    /// Where the next request crashes it, if it does.
    fn point(&self) -> Option<usize> {
        let crashes = self.crashes > 0 && self.random.below(self.crashes) == 0;
        crashes.then(|| self.random.below(4))
    }

    async fn reach(&self, crashes_at: Option<usize>, point: usize) {
        if crashes_at == Some(point) {
            self.crash.notify_one();
            pending::<()>().await;
        }
    }
}
