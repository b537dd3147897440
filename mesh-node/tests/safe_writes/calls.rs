//! Writes of an application, and what it was told of each.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// What the caller of a write was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    /// It was executed.
    Done,
    /// It was not.
    NotDone,
    /// One or the other, once at most.
    Unknown,
    /// Anything else.
    Other(String),
}

/// Writes under way, a few at a time.
#[derive(Debug)]
pub(crate) struct Calls {
    made: Arc<AtomicUsize>,
    told: Arc<Mutex<HashMap<String, Told>>>,
    workers: JoinSet<()>,
}

impl Calls {
    /// `count` writes to the order service through the node at `outbound`.
    pub(crate) fn start(runtime: &Runtime, outbound: u16, count: usize) -> Self {
        let mut calls = Self {
            made: Arc::default(),
            told: Arc::default(),
            workers: JoinSet::new(),
        };
        for _ in 0..WORKERS {
            let (made, told) = (Arc::clone(&calls.made), Arc::clone(&calls.told));
            let work = async move {
                let mut free = None;
                loop {
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let body = format!("payment-{number}");
                    let answer = call(outbound, &body, &mut free);
                    let answer = tokio::time::timeout(PATIENCE, answer).await;
                    let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    let answer = answer.unwrap_or_else(|error| Told::Other(error.to_string()));
                    told.lock().unwrap().insert(body, answer);
                }
            };
            calls.workers.spawn_on(work, runtime.handle());
        }
        calls
    }

    /// How many have ended.
    pub(crate) fn ended(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// What was told of each.
    pub(crate) fn told(self, runtime: &Runtime) -> HashMap<String, Told> {
        runtime.block_on(self.workers.join_all());
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

async fn call(outbound: u16, body: &str, free: &mut Option<TcpStream>) -> io::Result<Told> {
    let mut stream = match free.take() {
        Some(stream) => stream,
        None => TcpStream::connect(("127.0.0.1", outbound)).await?,
    };
    stream.set_nodelay(true)?;
    let length = body.len();
    let request = format!(
        "POST /payments HTTP/1.1\r\nhost: order-service\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::new();
    let (head, answer) = loop {
        let text = String::from_utf8_lossy(&buffer);
        if let Some((head, answer)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if answer.len() >= length {
                break (head, answer.to_owned());
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    if !head.contains("connection: close") {
        *free = Some(stream);
    }
    Ok(
        if head.starts_with("http/1.1 200 ") && answer == format!("done {body}") {
            Told::Done
        } else if head.contains("x-mesh-processed: no") {
            Told::NotDone
        } else if head.contains("x-mesh-error: outcome_unknown") {
            Told::Unknown
        } else {
            Told::Other(format!("{head}\n\n{answer}"))
        },
    )
}

const WORKERS: usize = 16;
/// Beyond every time limit of a node.
const PATIENCE: Duration = Duration::from_mins(1);
