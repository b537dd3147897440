//! What every source that asks a registry has in common: who watches what, and what is believed of the answers.
//!
//! A source splits in two. [`Registry`] is what callers hold; it implements [`Discover`]. [`Wants`] goes to the code that
//! talks to the registry: it says which services are watched, and gives a [`Reporter`] for each, which takes the answers.
//! Between the two stands a [`Ledger`](crate::Ledger) for each service, so no source can empty a list by accident.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::admission::Admission;
use crate::admission::AdmitAll;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::Refused;
use crate::evidence::Evidence;
use crate::evidence::NoEvidence;
use crate::ledger::Belief;
use crate::ledger::Ledger;
use crate::name::ServiceName;
use crate::report::SourceReport;
use crate::watch::Discover;
use crate::watch::Publisher;
use crate::watch::Watch;

/// How a registry's answers are taken.
#[derive(Clone)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// What the source is called in reports, logs and metrics.
    pub name: Arc<str>,
    /// What is believed of its answers.
    pub belief: Belief,
    /// What is known of endpoints from elsewhere. Default nothing.
    pub evidence: Arc<dyn Evidence>,
    /// What it may say. Default everything.
    pub admission: Arc<dyn Admission>,
}

impl RegistryConfig {
    /// A source of that name, all else default.
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            belief: Belief::default(),
            evidence: Arc::new(NoEvidence),
            admission: Arc::new(AdmitAll),
        }
    }

    /// With other rules of what is believed.
    #[must_use]
    pub fn with_belief(self, belief: Belief) -> Self {
        Self { belief, ..self }
    }

    /// With a judge of what it may say.
    #[must_use]
    pub fn with_admission(self, admission: Arc<dyn Admission>) -> Self {
        Self { admission, ..self }
    }

    /// With what active and passive checks know.
    #[must_use]
    pub fn with_evidence(self, evidence: Arc<dyn Evidence>) -> Self {
        Self { evidence, ..self }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig")
            .field("name", &self.name)
            .field("belief", &self.belief)
            .finish_non_exhaustive()
    }
}

/// A source that asks a registry; clones are the same source.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

/// The other end of a [`Registry`], for those who write a source: which services to ask for.
///
/// It must be polled for as long as the source lives, for it is also what lets time pass for what is believed. Dropping
/// it ends all watches.
#[derive(Debug)]
pub struct Wants {
    shared: Arc<Shared>,
    swept: Instant,
}

/// What has changed in what is watched.
#[derive(Debug)]
#[non_exhaustive]
pub enum Want {
    /// Ask for this service from now on, and tell the reporter.
    Begin(Reporter),
    /// Nobody watches it any more.
    End(ServiceName),
}

/// Takes what a registry says of one service. Clones are the same.
#[derive(Clone, Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

#[derive(Debug)]
struct Shared {
    config: RegistryConfig,
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<ServiceName, Arc<Entry>>,
    begun: VecDeque<ServiceName>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    service: ServiceName,
    publisher: Publisher,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    answered_at: Option<Instant>,
    failure: Option<Arc<str>>,
    /// Nobody watched it when this was looked at last.
    is_idle: bool,
}

impl Registry {
    /// A source, and its end for the code that talks to the registry.
    pub fn new(config: RegistryConfig) -> (Self, Wants) {
        let shared = Arc::new(Shared {
            config,
            table: Mutex::default(),
            changed: Notify::new(),
        });
        let wants = Wants {
            shared: Arc::clone(&shared),
            swept: now(),
        };
        (Self { shared }, wants)
    }

    /// What the source is called.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.config.name
    }
}

impl Discover for Registry {
    /// Watches a service. Past 10,000 of them, or when the source has ended, the watch comes back closed.
    fn watch(&self, service: &ServiceName) -> Watch {
        let mut table = self.shared.table();
        if let Some(entry) = table.entries.get(service) {
            return entry.publisher.watch();
        }
        if table.is_closed || table.entries.len() >= MAX_SERVICES {
            return Watch::closed(Endpoints::pending());
        }
        let ledger = Ledger::new(&self.shared.config.belief);
        let entry = Arc::new(Entry {
            service: service.clone(),
            publisher: Publisher::new(ledger.endpoints().clone()),
            state: Mutex::new(State {
                ledger,
                answered_at: None,
                failure: None,
                is_idle: false,
            }),
        });
        let watch = entry.publisher.watch();
        table.entries.insert(service.clone(), entry);
        table.begun.push_back(service.clone());
        drop(table);
        self.shared.changed.notify_one();
        watch
    }

    fn reports(&self, service: &ServiceName) -> Vec<SourceReport> {
        let Some(entry) = self.shared.table().entries.get(service).cloned() else {
            return Vec::new();
        };
        let state = entry.state();
        let mut report = SourceReport::new(self.name(), state.ledger.endpoints());
        report.is_used = true;
        report.answered_at = state.answered_at;
        report.changed_at = state.ledger.changed_at();
        report.failure.clone_from(&state.failure);
        report.exceptions = state.ledger.exceptions();
        vec![report]
    }
}

impl Wants {
    /// Waits for the next change in what is watched; also lets time pass for what is believed of all services.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that is not returned is returned by the next call.
    pub async fn next(&mut self) -> Want {
        loop {
            let now = now();
            if let Some(want) = self.take(now) {
                return want;
            }
            let due = self.shared.pass(now).min(self.swept + LINGER);
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    /// The source's name.
    pub fn source(&self) -> &Arc<str> {
        &self.shared.config.name
    }

    fn take(&mut self, now: Instant) -> Option<Want> {
        let mut table = self.shared.table();
        while let Some(service) = table.begun.pop_front() {
            if let Some(entry) = table.entries.get(&service) {
                return Some(Want::Begin(Reporter {
                    shared: Arc::clone(&self.shared),
                    entry: Arc::clone(entry),
                }));
            }
        }
        if now < self.swept + LINGER {
            return None;
        }
        let idle = table.entries.values().find(|entry| {
            let was_idle = entry.state().is_idle;
            was_idle && !entry.publisher.is_watched()
        });
        if let Some(service) = idle.map(|entry| entry.service.clone()) {
            table.entries.remove(&service);
            return Some(Want::End(service));
        }
        for entry in table.entries.values() {
            entry.state().is_idle = !entry.publisher.is_watched();
        }
        self.swept = now;
        None
    }
}

impl Drop for Wants {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.is_closed = true;
        table.entries.clear();
    }
}

impl Reporter {
    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.entry.service
    }

    /// The registry says that these are all its endpoints; an empty list where it knows none.
    pub fn found(&self, list: Vec<Endpoint>) {
        self.found_except(list, Refused::default());
    }

    /// [`Self::found`] for who leaves out endpoints that can't be read, and names them. Where none is left the answer
    /// counts as a failure.
    pub fn found_except(&self, mut list: Vec<Endpoint>, mut refused: Refused) {
        let (service, now) = (self.service(), now());
        list.retain_mut(|endpoint| {
            endpoint.source = Some(Arc::clone(&self.shared.config.name));
            // threat 48
            let admitted = self.shared.config.admission.admit(service, endpoint);
            admitted.map_err(|error| refused.add(error)).is_ok()
        });
        let mut state = self.entry.state();
        match Endpoints::sift_more(list, refused, 0) {
            Ok((endpoints, refused)) => {
                if let Some(error) = refused.first {
                    tracing::warn!(%service, source = %self.shared.config.name, count = refused.count,
                        error = &error as &dyn StdError, "endpoints of the registry are left out");
                }
                state.answered_at = Some(now);
                state.failure = None;
                state
                    .ledger
                    .found(now, &endpoints, &self.shared.evidence(service));
            }
            Err(error) => self.fail(&mut state, &error),
        }
        self.publish(&state);
    }

    /// The registry says that nothing has changed.
    pub fn confirmed(&self) {
        let mut state = self.entry.state();
        state.answered_at = Some(now());
        state.failure = None;
        state.ledger.confirmed(now());
        self.publish(&state);
    }

    /// The registry gave no answer, or none that can be used.
    pub fn failed(&self, error: &dyn StdError) {
        let mut state = self.entry.state();
        self.fail(&mut state, error);
        self.publish(&state);
    }

    fn fail(&self, state: &mut State, error: &dyn StdError) {
        let text = chain(error);
        if state.failure.as_deref() != Some(&*text) {
            tracing::warn!(service = %self.service(), source = %self.shared.config.name, error = %text,
                "the registry gives no usable answer, keeping the last good one");
        }
        state.failure = Some(text.into());
        state.ledger.failed(now());
    }

    fn publish(&self, state: &State) {
        self.entry
            .publisher
            .publish(state.ledger.endpoints().clone());
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while the lock is held, and the table is whole between any two statements.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evidence<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Fn(&Endpoint) -> crate::Status + 'a {
        move |endpoint| self.config.evidence.status(service, endpoint)
    }

    /// Lets time pass for all services, and tells when to do so again.
    fn pass(&self, now: Instant) -> Instant {
        let entries: Vec<_> = self.table().entries.values().cloned().collect();
        let mut next = now + LINGER;
        for entry in entries {
            let mut state = entry.state();
            if state.ledger.next_due().is_some_and(|due| due <= now) {
                state.ledger.pass(now, &self.evidence(&entry.service));
                entry.publisher.publish(state.ledger.endpoints().clone());
            }
            next = state.ledger.next_due().map_or(next, |due| due.min(next));
        }
        next
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work of a source: a future that never ends by itself. The caller runs it, as a task or beside something else;
/// dropping it ends the source's watches and all it does.
#[must_use = "nothing is asked of the registry unless this is awaited"]
pub struct Driver(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Driver {
    /// The work that `future` does.
    pub fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }

    /// Runs `follow` for each service that is watched, for as long as it is watched.
    pub fn follow_each<F>(mut wants: Wants, follow: impl Fn(Reporter) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::new(async move {
            let mut running = FuturesUnordered::new();
            let mut ends: HashMap<ServiceName, tokio::sync::oneshot::Sender<()>> = HashMap::new();
            loop {
                tokio::select! {
                    want = wants.next() => match want {
                        Want::Begin(reporter) => {
                            let (end, ended) = tokio::sync::oneshot::channel();
                            ends.insert(reporter.service().clone(), end);
                            let work = follow(reporter);
                            running.push(async move {
                                tokio::select! {
                                    () = work => {}
                                    _ = ended => {}
                                }
                            });
                        }
                        Want::End(service) => drop(ends.remove(&service)),
                    },
                    Some(()) = running.next() => {}
                }
            }
        })
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// An error with all its causes, on one bounded line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_FAILURE)
        .collect()
}

/// The clock of the runtime, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The most services that are watched at a time: callers may ask for any name they like.
const MAX_SERVICES: usize = 10_000;
/// How often services that nobody watches are looked for; one is given up when it was idle twice.
const LINGER: Duration = Duration::from_secs(30);
/// What a registry says may end in a log.
const MAX_FAILURE: usize = 500;
