//! Runs the checks of one service with a clock and a probe.

use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::sync::watch;

use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::error::Error;
use crate::health::CheckTable;
use crate::health::EndpointHealth;
use crate::health::HealthConfig;
use crate::health::Vitals;
use crate::name::ServiceName;
use crate::watch::Closed;
use crate::watch::Publisher;
use crate::watch::Watch;

/// What the checks of a service have found so far; clones share it. The checks go on while somebody holds one.
#[derive(Clone, Debug)]
pub struct Health {
    usable: Watch,
    state: Arc<Mutex<State>>,
    turns: watch::Receiver<u64>,
}

#[derive(Debug)]
struct State {
    endpoints: Endpoints,
    table: CheckTable,
}

impl Health {
    /// A watch of the endpoints that may be used: all but the unhealthy ones, or all when every one of them
    /// is unhealthy. It ends when the driver does.
    pub fn watch(&self) -> Watch {
        self.usable.clone()
    }

    /// Waits until the status of an endpoint changes, or the endpoints do; several changes may come as one.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the driver has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.turns.changed().await.ok().ok_or(Closed)
    }

    /// Every endpoint and its status, in the order of the source.
    pub fn statuses(&self) -> Arc<[EndpointHealth]> {
        let state = lock(&self.state);
        state.table.report(&state.endpoints)
    }
}

/// How many probes run at a time, over all services whose drivers share it. Clones are the same.
#[derive(Clone, Debug)]
pub struct ProbeLimit(Arc<Semaphore>);

impl ProbeLimit {
    /// At most `probes` at a time. Each holds a connection, so half of the file descriptors that can be spared is much.
    pub fn new(probes: NonZeroUsize) -> Self {
        Self(Arc::new(Semaphore::new(
            probes.get().min(Semaphore::MAX_PERMITS),
        )))
    }
}

/// Probes the endpoints of one service for as long as [`HealthDriver::run`] is awaited.
///
/// A probe is a call of the function that was given, and succeeds when that does: a TCP check opens a connection and
/// closes it.
pub struct HealthDriver<C> {
    connect: C,
    source: Watch,
    usable: Publisher,
    state: Arc<Mutex<State>>,
    turns: watch::Sender<u64>,
    revision: u64,
    limit: Option<ProbeLimit>,
    random: Option<Arc<RandomFor>>,
    vitals: Option<(Arc<Vitals>, ServiceName)>,
}

type RandomFor = dyn Fn() -> u64 + Send + Sync;

impl<C, F> HealthDriver<C>
where
    C: Fn(Arc<Endpoint>) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    /// Prepares the checks of what `source` watches; until the driver runs, all endpoints may be used.
    ///
    /// # Errors
    ///
    /// [`Error::HealthConfig`] when the interval or the timeout is out of range.
    pub fn new(config: HealthConfig, source: Watch, connect: C) -> Result<(Health, Self), Error> {
        let endpoints = source.current();
        let table = CheckTable::new(config)?;
        let usable = Publisher::new(endpoints.clone());
        let state = Arc::new(Mutex::new(State { endpoints, table }));
        let turns = watch::Sender::new(0);
        let health = Health {
            usable: usable.watch(),
            state: Arc::clone(&state),
            turns: turns.subscribe(),
        };
        let driver = Self {
            connect,
            source,
            usable,
            state,
            turns,
            revision: 0,
            limit: None,
            random: None,
            vitals: None,
        };
        Ok((health, driver))
    }

    /// Shares a limit with the checks of other services. A probe that waits for its turn is not late.
    #[must_use]
    pub fn with_limit(self, limit: ProbeLimit) -> Self {
        let limit = Some(limit);
        Self { limit, ..self }
    }

    /// Spreads the probes by chance; see [`CheckTable::record`]. Default not at all.
    #[must_use]
    pub fn with_random(self, random: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        let random = Some(random);
        Self { random, ..self }
    }

    /// Tells what it finds of `service`, until it ends.
    #[must_use]
    pub fn with_vitals(self, vitals: Arc<Vitals>, service: ServiceName) -> Self {
        let vitals = Some((vitals, service));
        Self { vitals, ..self }
    }

    /// Probes until the source is gone, or nobody holds the [`Health`] any more; then what was found last stays.
    ///
    /// At most 64 probes run at a time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends all probes; nothing else is lost.
    pub async fn run(mut self) {
        // What ends, however it ends, is no evidence any more.
        let _told = Told(self.vitals.clone());
        let first = self.source.current();
        self.revision = first.revision();
        self.update(first);
        let mut probes = Probes::default();
        loop {
            let room = MAX_PROBES.saturating_sub(probes.running.len());
            let (due, timeout, next) = self.take_due(room);
            for endpoint in due {
                let attempt = (self.connect)(Arc::clone(&endpoint));
                let probe = limited(self.limit.clone(), attempt, timeout);
                probes.start(endpoint, probe);
            }
            let next = next.filter(|_| probes.running.len() < MAX_PROBES);
            tokio::select! {
                changed = self.source.changed() => match changed {
                    Ok(endpoints) => {
                        let endpoints = endpoints.clone();
                        self.update(endpoints);
                        self.publish();
                    }
                    Err(_closed) => return,
                },
                () = self.usable.unwatched() => return,
                (endpoint, outcome) = probes.next() => self.record(&endpoint, &outcome),
                () = sleep_until(next) => {}
            }
        }
    }

    fn take_due(&self, room: usize) -> (Vec<Arc<Endpoint>>, Duration, Option<Instant>) {
        let mut state = self.state();
        let due = state.table.take_due(now(), room);
        (due, state.table.timeout(), state.table.next_due())
    }

    fn update(&self, endpoints: Endpoints) {
        if let Some((vitals, service)) = &self.vitals {
            vitals.retain(service, &endpoints);
        }
        let random = self.random.as_ref().map_or(0, |random| random());
        let state = &mut *self.state();
        state.endpoints = endpoints;
        state.table.update(now(), &state.endpoints, random);
    }

    fn record(&mut self, endpoint: &Endpoint, outcome: &io::Result<()>) {
        let failure = outcome.as_ref().err().map(ToString::to_string);
        let random = self.random.as_ref().map_or(STEADY, |random| random());
        let outcome = failure.as_deref().map_or(Ok(()), Err);
        let changed = self.state().table.record(now(), endpoint, outcome, random);
        let Some(status) = changed else { return };
        match outcome {
            Ok(()) => {
                tracing::info!(endpoint = %endpoint, ?status, "health check changed the status");
            }
            Err(error) => {
                tracing::warn!(endpoint = %endpoint, ?status, error, "health check changed the status");
            }
        }
        if let Some((vitals, service)) = &self.vitals {
            vitals.checked(service, endpoint, status);
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.revision += 1;
        let usable = {
            let state = self.state();
            state.table.usable(&state.endpoints, self.revision)
        };
        self.usable.publish(usable);
        self.turns.send_replace(self.revision);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl<C> fmt::Debug for HealthDriver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthDriver").finish_non_exhaustive()
    }
}

struct Told(Option<(Arc<Vitals>, ServiceName)>);

impl Drop for Told {
    fn drop(&mut self) {
        if let Some((vitals, service)) = &self.0 {
            vitals.unchecked(service);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics while the lock is held.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One attempt when its turn comes.
async fn limited(
    limit: Option<ProbeLimit>,
    attempt: impl Future<Output = io::Result<()>>,
    timeout: Duration,
) -> io::Result<()> {
    let _turn = match &limit {
        // It is never closed; if it were, nothing would be limited.
        Some(limit) => limit.0.acquire().await.ok(),
        None => None,
    };
    probe(attempt, timeout).await
}

/// One attempt with its time limit.
async fn probe(attempt: impl Future<Output = io::Result<()>>, limit: Duration) -> io::Result<()> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            let message = format!("no answer within {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}

/// The probes that are running: so few that all of them are polled at each turn.
#[derive(Default)]
struct Probes {
    running: Vec<(Arc<Endpoint>, Probe)>,
}

type Probe = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

impl Probes {
    fn start(
        &mut self,
        endpoint: Arc<Endpoint>,
        probe: impl Future<Output = io::Result<()>> + Send + 'static,
    ) {
        self.running.push((endpoint, Box::pin(probe)));
    }

    /// The next probe that ends; waits for ever when none is running.
    async fn next(&mut self) -> (Arc<Endpoint>, io::Result<()>) {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Arc<Endpoint>, io::Result<()>)> {
        let mut polled = self
            .running
            .iter_mut()
            .enumerate()
            .map(|(i, (_, probe))| (i, probe.as_mut().poll(cx)));
        let ended = polled.find_map(|(i, poll)| match poll {
            Poll::Ready(outcome) => Some((i, outcome)),
            Poll::Pending => None,
        });
        match ended {
            Some((i, outcome)) => Poll::Ready((self.running.swap_remove(i).0, outcome)),
            None => Poll::Pending,
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The clock of the runtime, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A bound on file descriptors and on what the endpoints see at once.
const MAX_PROBES: usize = 64;
/// The random number that leaves the interval as it is.
const STEADY: u64 = 500;
