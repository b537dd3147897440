//! Runs the checks of one service with a clock and a connect function.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::watch;

use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::error::Error;
use crate::health::CheckTable;
use crate::health::HealthConfig;
use crate::health::Status;
use crate::watch::Publisher;
use crate::watch::Watch;

/// What the checks of a service have found so far; clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    usable: Watch,
    statuses: watch::Receiver<Arc<[EndpointHealth]>>,
}

impl Health {
    /// A watch of the endpoints that may be used: all but the unhealthy ones, or all when every one of them
    /// is unhealthy. It ends when the driver does.
    pub fn watch(&self) -> Watch {
        self.usable.clone()
    }

    /// Every endpoint and its status, in the order of the source.
    pub fn statuses(&self) -> Arc<[EndpointHealth]> {
        Arc::clone(&self.statuses.borrow())
    }
}

/// An endpoint and what the checks say of it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its status.
    pub status: Status,
}

/// Probes the endpoints of one service for as long as [`HealthDriver::run`] is awaited.
///
/// A probe is a call of the connect function that was given: a TCP check opens a connection and closes it.
#[derive(Debug)]
pub struct HealthDriver<C> {
    connect: C,
    source: Watch,
    endpoints: Endpoints,
    table: CheckTable,
    usable: Publisher,
    statuses: watch::Sender<Arc<[EndpointHealth]>>,
    revision: u64,
}

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
        let statuses = watch::Sender::new(report(&table, &endpoints));
        let health = Health {
            usable: usable.watch(),
            statuses: statuses.subscribe(),
        };
        let driver = Self {
            connect,
            source,
            endpoints,
            table,
            usable,
            statuses,
            revision: 0,
        };
        Ok((health, driver))
    }

    /// Probes until the source is gone; then what was found last stays.
    ///
    /// At most 64 probes run at a time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends all probes; nothing else is lost.
    pub async fn run(mut self) {
        self.revision = self.endpoints.revision();
        self.table.update(now(), &self.endpoints);
        let mut probes = Probes::default();
        loop {
            let room = MAX_PROBES.saturating_sub(probes.running.len());
            for endpoint in self.table.take_due(now(), room) {
                let attempt = (self.connect)(Arc::clone(&endpoint));
                probes.start(endpoint, probe(attempt, self.table.timeout()));
            }
            let next = self
                .table
                .next_due()
                .filter(|_| probes.running.len() < MAX_PROBES);
            tokio::select! {
                changed = self.source.changed() => match changed {
                    Ok(endpoints) => {
                        self.endpoints = endpoints.clone();
                        self.table.update(now(), &self.endpoints);
                        self.publish();
                    }
                    Err(_closed) => return,
                },
                (endpoint, outcome) = probes.next() => self.record(&endpoint, &outcome),
                () = sleep_until(next) => {}
            }
        }
    }

    fn record(&mut self, endpoint: &Endpoint, outcome: &io::Result<()>) {
        let changed = self.table.record(now(), endpoint, outcome.is_ok());
        let Some(status) = changed else { return };
        match outcome {
            Ok(()) => {
                tracing::info!(endpoint = %endpoint, ?status, "health check changed the status");
            }
            Err(error) => {
                tracing::warn!(endpoint = %endpoint, ?status, %error, "health check changed the status");
            }
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.revision += 1;
        self.usable
            .publish(self.table.usable(&self.endpoints, self.revision));
        self.statuses
            .send_replace(report(&self.table, &self.endpoints));
    }
}

/// One attempt with its time limit.
async fn probe(attempt: impl Future<Output = io::Result<()>>, limit: Duration) -> io::Result<()> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
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

fn report(table: &CheckTable, endpoints: &Endpoints) -> Arc<[EndpointHealth]> {
    let of = |endpoint: &Arc<Endpoint>| EndpointHealth {
        endpoint: Arc::clone(endpoint),
        status: table.status(&endpoint.id),
    };
    endpoints.iter().map(of).collect()
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
