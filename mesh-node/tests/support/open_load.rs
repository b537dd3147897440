//! Calls at a fixed rate, whatever becomes of those before, and applications that note when each reaches them.

use std::collections::HashMap;
use std::io;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What an application does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Answers at once.
    Nothing,
    /// Takes some time for each, and does so many at a time.
    Takes(Duration, usize),
    /// Asks a service through the node at this port, and passes its status on.
    Asks(u16, &'static str),
}

/// An application that speaks HTTP/1.1.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) port: u16,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    arrivals: Mutex<Vec<Instant>>,
    /// How often each target was asked for.
    targets: Mutex<HashMap<String, usize>>,
    status: AtomicU16,
    frozen: watch::Sender<bool>,
    work: Work,
    /// When each of those that work is free again.
    places: Mutex<Vec<Instant>>,
    free: Free,
}

/// Connections that nobody uses.
type Free = Mutex<Vec<TcpStream>>;

impl App {
    /// Serves in `runtime`, for as long as this lives, and answers at once.
    pub(crate) fn start(runtime: &Runtime) -> Self {
        Self::working(runtime, Work::Nothing)
    }

    /// The same with something to do.
    pub(crate) fn working(runtime: &Runtime, work: Work) -> Self {
        let _entered = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let places = match work {
            Work::Takes(_, places) => places,
            _ => 0,
        };
        let state = Arc::new(State {
            arrivals: Mutex::default(),
            targets: Mutex::default(),
            status: AtomicU16::new(200),
            frozen: watch::Sender::new(false),
            work,
            places: Mutex::new(vec![Instant::now(); places]),
            free: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.wait_thawed().await;
                let state = Arc::clone(&shared);
                connections.spawn(async move { answer(stream, &state).await.unwrap_or_default() });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            port,
            state,
            _tasks: tasks,
        }
    }

    /// Answers with this status from now on.
    pub(crate) fn answers(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// Stops where it stands, as at SIGSTOP: the system still takes connections and bytes for it, and nothing comes back.
    pub(crate) fn freeze(&self) {
        self.state.frozen.send_replace(true);
    }

    /// Goes on.
    pub(crate) fn thaw(&self) {
        self.state.frozen.send_replace(false);
    }

    /// How many requests reached it.
    pub(crate) fn count(&self) -> usize {
        self.state.arrivals.lock().unwrap().len()
    }

    /// How often each target was asked for.
    pub(crate) fn targets(&self) -> HashMap<String, usize> {
        self.state.targets.lock().unwrap().clone()
    }

    /// When the first request reached it after `since`, and when the last one did.
    pub(crate) fn between(&self, since: Instant) -> Option<(Instant, Instant)> {
        let arrivals = self.state.arrivals.lock().unwrap();
        let mut after = arrivals.iter().filter(|at| **at >= since);
        let first = *after.next()?;
        Some((first, *after.next_back().unwrap_or(&first)))
    }
}

impl State {
    async fn wait_thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        // It ends with the application only, and this with it.
        drop(frozen.wait_for(|is_frozen| !is_frozen).await);
    }

    /// Until when the next one who is free works for a call that comes now.
    fn take_place(&self, time: Duration) -> Instant {
        let mut places = self.places.lock().unwrap();
        let place = places.iter_mut().min().unwrap();
        *place = (*place).max(Instant::now()) + time;
        *place
    }

    /// Does what is to be done, and gives the status of the answer and what else stands in its head.
    async fn work(&self, head: &str) -> io::Result<(u16, &'static str)> {
        match self.work {
            Work::Nothing => {}
            Work::Takes(time, _) => {
                // By the plan and not by the timer: what a busy machine adds must not add up.
                tokio::time::sleep_until(self.take_place(time)).await;
                self.wait_thawed().await;
            }
            Work::Asks(outbound, service) => {
                let target = head.split(' ').nth(1).unwrap_or("/");
                // An application carries on what tells of its caller's call.
                let carried = head.lines().filter(|line| line.starts_with("x-mesh-"));
                let carried: Vec<_> = carried.filter(|line| is_carried(line)).collect();
                let mut ask = Ask::new("GET", service, target);
                for line in carried {
                    ask.fields.push_str(line);
                    ask.fields.push_str("\r\n");
                }
                let told = ask.call(outbound, &self.free).await?;
                let is_final = told.field("x-mesh-retry").is_some();
                let fields = if is_final {
                    "x-mesh-retry: never\r\n"
                } else {
                    ""
                };
                return Ok((told.status, fields));
            }
        }
        Ok((self.status.load(Ordering::SeqCst), ""))
    }
}

fn is_carried(line: &str) -> bool {
    line.starts_with("x-mesh-attempt:") || line.starts_with("x-mesh-timeout-ms:")
}

async fn answer(mut stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        state.wait_thawed().await;
        let Some(request) = Message::read(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        state.wait_thawed().await;
        let target = request.head.split(' ').nth(1).unwrap_or_default();
        state.arrivals.lock().unwrap().push(Instant::now());
        *state
            .targets
            .lock()
            .unwrap()
            .entry(target.to_owned())
            .or_default() += 1;
        let (status, fields) = state.work(&request.head).await.unwrap_or((502, ""));
        let body = if request.body.is_empty() {
            b"done".to_vec()
        } else {
            request.body
        };
        let len = body.len();
        let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {len}\r\n{fields}\r\n");
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
}

/// A request or an answer.
#[derive(Debug)]
struct Message {
    /// In small letters.
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// The next one; nothing where there is no further one.
    async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let end = loop {
            let found = buffer.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = found {
                break end + 4;
            }
            if stream.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let len = field(&head, "content-length").and_then(|len| len.parse().ok());
        let len: usize = len.unwrap_or(0);
        while buffer.len() < end + len {
            if stream.read_buf(buffer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = buffer.split_off(end + len);
        let body = buffer.split_off(end);
        *buffer = rest;
        Ok(Some(Self { head, body }))
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What is asked of a service.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: &'static str,
    service: String,
    target: String,
    /// More fields of the head, each with its line's end.
    pub(crate) fields: String,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: &'static str, service: &str, target: &str) -> Self {
        Self {
            method,
            service: service.to_owned(),
            target: target.to_owned(),
            fields: String::new(),
            body: Vec::new(),
        }
    }

    /// Asks through the node at a port, over a free connection or a new one.
    pub(crate) async fn call(&self, outbound: u16, free: &Free) -> io::Result<Told> {
        let mut stream = match open(free) {
            Some(stream) => stream,
            None => TcpStream::connect(("127.0.0.1", outbound)).await?,
        };
        stream.set_nodelay(true)?;
        let (method, target, service) = (self.method, &self.target, &self.service);
        let length = match self.body.len() {
            0 => String::new(),
            len => format!("content-length: {len}\r\n"),
        };
        let fields = &self.fields;
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {service}\r\n{length}{fields}\r\n");
        let request = [head.as_bytes(), &self.body].concat();
        stream.write_all(&request).await?;
        let answer = Message::read(&mut stream, &mut Vec::new()).await?;
        let Message { head, body } = answer.ok_or(ErrorKind::UnexpectedEof)?;
        if field(&head, "connection") != Some("close") {
            free.lock().unwrap().push(stream);
        }
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.ok_or(ErrorKind::InvalidData)?;
        Ok(Told { status, head, body })
    }

    pub(crate) fn once(&self, runtime: &Runtime, outbound: u16) -> io::Result<Told> {
        let free = Mutex::default();
        runtime.block_on(within_patience(self.call(outbound, &free)))
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    /// In small letters.
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Told {
    /// A field of its head, in small letters.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

async fn within_patience(call: impl Future<Output = io::Result<Told>>) -> io::Result<Told> {
    let outcome = tokio::time::timeout(PATIENCE, call).await;
    outcome.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// One call of many.
#[derive(Debug)]
pub(crate) struct Call {
    /// When it was to be made.
    pub(crate) due: Instant,
    /// From then to its answer.
    pub(crate) took: Duration,
    /// Nothing where there was none.
    pub(crate) status: Option<u16>,
}

/// What became of the calls of some time.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) made: usize,
    /// What each that was not answered with 200 got.
    pub(crate) failed: Vec<String>,
    /// From the moment when each was due to its answer, the shortest first; of those that were answered with 200.
    took: Vec<Duration>,
    /// All, in the order in which they were to be made.
    pub(crate) list: Vec<Call>,
}

impl Calls {
    fn add(&mut self, due: Instant, outcome: io::Result<Told>) {
        let took = due.elapsed();
        self.made += 1;
        let status = outcome.as_ref().ok().map(|told| told.status);
        self.list.push(Call { due, took, status });
        match outcome {
            Ok(told) if told.status == 200 => self.took.push(took),
            Ok(told) => {
                let body = String::from_utf8_lossy(&told.body);
                self.failed.push(format!("{}{body}", told.head));
            }
            Err(error) => self.failed.push(error.to_string()),
        }
    }

    pub(crate) fn quantile(&self, per_cent: usize) -> Duration {
        quantile(&self.took, per_cent)
    }

    /// The same of those with another status.
    pub(crate) fn quantile_of(&self, status: u16, per_cent: usize) -> Duration {
        let of = self.list.iter().filter(|call| call.status == Some(status));
        let mut took: Vec<_> = of.map(|call| call.took).collect();
        took.sort();
        quantile(&took, per_cent)
    }

    /// The same of those that were answered with 200 and due at that time.
    pub(crate) fn quantile_within(
        &self,
        per_cent: usize,
        since: Instant,
        until: Instant,
    ) -> Duration {
        let good = self.list.iter().filter(|call| call.status == Some(200));
        let due = good.filter(|call| (since..until).contains(&call.due));
        let mut took: Vec<_> = due.map(|call| call.took).collect();
        took.sort();
        quantile(&took, per_cent)
    }

    /// How many of those that were due at that time got this status, and how many there were.
    pub(crate) fn count(&self, status: u16, since: Instant, until: Instant) -> (usize, usize) {
        let due = |call: &&Call| (since..until).contains(&call.due);
        let all = self.list.iter().filter(due);
        let of = all.clone().filter(|call| call.status == Some(status));
        (of.count(), all.count())
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
        let ask = Ask::new("GET", "order-service", "/steady");
        Self::of(runtime, outbound, per_second, &ask)
    }

    /// The same of other calls; behind the target of each stands its number.
    pub(crate) fn of(runtime: &Runtime, outbound: u16, per_second: u32, ask: &Ask) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            calls: Arc::default(),
            ticking: JoinSet::new(),
        };
        let (stop, calls, ask) = (Arc::clone(&load.stop), Arc::clone(&load.calls), ask.clone());
        let ticks = async move {
            let free = Arc::new(Mutex::new(Vec::new()));
            let mut under_way = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
            let mut number = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                // Ticks that were missed follow at once: the rate stays, and a call counts from when it was due.
                let due = ticks.tick().await;
                let (free, calls) = (Arc::clone(&free), Arc::clone(&calls));
                let mut ask = ask.clone();
                ask.target = format!("{}/{number}", ask.target);
                number += 1;
                under_way.spawn(async move {
                    let outcome = within_patience(ask.call(outbound, &free)).await;
                    calls.lock().unwrap().add(due, outcome);
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
        calls.list.sort_by_key(|call| call.due);
        calls
    }
}

/// A connection that is free, and that the node has not closed meanwhile because it was free for too long.
fn open(free: &Free) -> Option<TcpStream> {
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
