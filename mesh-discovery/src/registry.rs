//! What every source that asks a registry has in common: who watches what, and what is believed of the answers.
//!
//! A source splits in two. [`Registry`] is what callers hold; it implements [`Discover`]. [`Wants`] goes to the code that
//! talks to the registry: it says which services are watched, and gives a [`Reporter`] for each, which takes the answers.
//! Between the two stands a [`Ledger`](crate::Ledger) for each service, so no source can empty a list by accident.

mod told;

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
use std::time::Instant;

use crate::admission::Admission;
use crate::admission::AdmitAll;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::endpoint::Refused;
use crate::endpoint::Staleness;
use crate::endpoint::Standing;
use crate::error::chain;
use crate::evidence::Evidence;
use crate::evidence::NoEvidence;
use crate::ledger::Belief;
use crate::ledger::Ledger;
use crate::name::ServiceName;
use crate::recall::Recall;
use crate::report::SourceReport;
use crate::subscription::Change;
use crate::subscription::Changes;
use crate::subscription::Running;
use crate::subscription::Subscription;
use crate::subscription::Subscriptions;
use crate::subscription::now;
use crate::watch::Discover;
use crate::watch::Watch;

use self::told::Told;

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
    /// What outlives the process. Default nothing.
    pub cache: Option<Arc<dyn Recall>>,
}

impl RegistryConfig {
    /// A source of that name, all else default.
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            belief: Belief::default(),
            evidence: Arc::new(NoEvidence),
            admission: Arc::new(AdmitAll),
            cache: None,
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

    /// With lists that outlive the process, kept under the name of the source.
    #[must_use]
    pub fn with_cache(self, cache: Arc<dyn Recall>) -> Self {
        Self {
            cache: Some(cache),
            ..self
        }
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
    changes: Changes<State>,
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
    entry: Arc<Subscription<State>>,
}

#[derive(Debug)]
struct Shared {
    config: RegistryConfig,
    watched: Arc<Subscriptions<State>>,
    /// Services for which something is due at some time.
    timed: Mutex<Vec<Arc<Subscription<State>>>>,
}

/// What is known of one service.
#[derive(Debug)]
struct State {
    ledger: Ledger,
    answered_at: Option<Instant>,
    failure: Option<Arc<str>>,
    refused: Refused,
    told: Told,
    /// It is in the list of those for which something is due.
    is_timed: bool,
    /// How many endpoints were kept against the registry, and left out, when that was logged.
    logged: (usize, usize),
}

impl Registry {
    /// A source, and its end for the code that talks to the registry.
    pub fn new(config: RegistryConfig) -> (Self, Wants) {
        let (watched, changes) = Subscriptions::new();
        let shared = Arc::new(Shared {
            config,
            watched,
            timed: Mutex::default(),
        });
        let wants = Wants {
            shared: Arc::clone(&shared),
            changes,
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
        self.shared.watched.watch(service, || {
            let ledger = self.shared.ledger(service);
            let endpoints = ledger.endpoints().clone();
            (endpoints, State::new(ledger))
        })
    }

    fn reports(&self, service: &ServiceName) -> Vec<SourceReport> {
        let Some(entry) = self.shared.watched.get(service) else {
            return Vec::new();
        };
        let state = entry.state();
        let mut report = SourceReport::new(self.name(), state.ledger.endpoints());
        report.is_used = true;
        report.answered_at = state.answered_at;
        report.changed_at = state.ledger.changed_at();
        report.failure.clone_from(&state.failure);
        report.refused = state.refused.count;
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
        match self.changes.next(|now| self.shared.pass(now)).await {
            Change::Begin(entry) => Want::Begin(Reporter {
                shared: Arc::clone(&self.shared),
                entry,
            }),
            Change::End(service) => Want::End(service),
        }
    }

    /// The source's name.
    pub fn source(&self) -> &Arc<str> {
        &self.shared.config.name
    }
}

impl Drop for Wants {
    fn drop(&mut self) {
        // What is due for a service would keep its watches open.
        self.shared.timed().clear();
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
        // What is too long is refused whole, without a look at each endpoint.
        if list.len() <= MAX_ENDPOINTS_PER_SERVICE {
            list.retain_mut(|endpoint| {
                endpoint.source = Some(Arc::clone(self.source()));
                // threat 48
                let admitted = self.shared.config.admission.admit(service, endpoint);
                admitted.map_err(|error| refused.add(error)).is_ok()
            });
        }
        let mut state = self.entry.state();
        match Endpoints::sift_more(list, refused, 0) {
            Ok((endpoints, refused)) => {
                let is_news = state.told.is_news(now, &refused);
                if let Some(error) = refused.first.as_ref().filter(|_| is_news) {
                    tracing::warn!(%service, source = %self.source(), count = refused.count,
                        error = error as &dyn StdError, "endpoints of the registry are left out");
                }
                state.refused = refused;
                state.answers(self.source(), service, now);
                let evidence = self.shared.evidence(service);
                state.ledger.found(now, &endpoints, &evidence);
            }
            Err(error) => self.fail(&mut state, &error),
        }
        self.shared.settle(&self.entry, &mut state);
    }

    /// The registry says that nothing has changed.
    pub fn confirmed(&self) {
        let (now, mut state) = (now(), self.entry.state());
        state.answers(self.source(), self.service(), now);
        state.ledger.confirmed(now);
        self.shared.settle(&self.entry, &mut state);
    }

    /// The registry gave no answer, or none that can be used.
    pub fn failed(&self, error: &dyn StdError) {
        let mut state = self.entry.state();
        self.fail(&mut state, error);
        self.shared.settle(&self.entry, &mut state);
    }

    fn fail(&self, state: &mut State, error: &dyn StdError) {
        let text = chain(error);
        if state.failure.as_deref() != Some(&*text) {
            tracing::warn!(service = %self.service(), source = %self.source(), error = %text,
                "the registry gives no usable answer, keeping the last good one");
        }
        state.failure = Some(text.into());
        state.ledger.failed(now());
    }

    fn source(&self) -> &Arc<str> {
        &self.shared.config.name
    }
}

impl Shared {
    fn evidence<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Fn(&Endpoint) -> crate::Status + 'a {
        move |endpoint| self.config.evidence.status(service, endpoint)
    }

    /// Begins with what is remembered of a service, if anything.
    fn ledger(&self, service: &ServiceName) -> Ledger {
        let config = &self.config;
        let cache = config.cache.as_ref();
        let Some(list) = cache.and_then(|cache| cache.recall(&config.name, service)) else {
            return Ledger::new(&config.belief);
        };
        // threat 48: what is let in is for the rules of now to say, not for those of then.
        let list = list.filtered(0, |one| config.admission.admit(service, one).is_ok());
        tracing::info!(%service, source = %config.name, endpoints = list.len(),
            "begins with the endpoints from before, until the registry answers");
        Ledger::restored(&config.belief, &list)
    }

    /// Passes on what has come out of a change in the ledger.
    fn settle(&self, entry: &Arc<Subscription<State>>, state: &mut State) {
        self.publish(entry, state);
        if state.ledger.next_due().is_some() {
            if !state.is_timed {
                state.is_timed = true;
                self.timed().push(Arc::clone(entry));
            }
            self.watched.wake();
        }
    }

    fn publish(&self, entry: &Subscription<State>, state: &mut State) {
        let endpoints = state.ledger.endpoints();
        entry.publisher.publish(endpoints.clone());
        if let Some(cache) = &self.config.cache
            && is_worth_keeping(endpoints.standing())
        {
            cache.remember(&self.config.name, &entry.service, endpoints);
        }
        state.log(&self.config.name, &entry.service);
    }

    /// Lets time pass for the services for which something is due, and tells when to do so again.
    fn pass(&self, now: Instant) -> Option<Instant> {
        let timed = std::mem::take(&mut *self.timed());
        let mut next: Option<Instant> = None;
        for entry in timed {
            if entry.is_over() {
                continue;
            }
            let mut state = entry.state();
            if state.ledger.next_due().is_some_and(|due| due <= now) {
                state.ledger.pass(now, &self.evidence(&entry.service));
                self.publish(&entry, &mut state);
            }
            match state.ledger.next_due() {
                Some(due) => {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    self.timed().push(Arc::clone(&entry));
                }
                None => state.is_timed = false,
            }
        }
        next
    }

    /// Always the last lock that is taken.
    fn timed(&self) -> MutexGuard<'_, Vec<Arc<Subscription<State>>>> {
        self.timed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            answered_at: None,
            failure: None,
            refused: Refused::default(),
            told: Told::default(),
            is_timed: false,
            logged: (0, 0),
        }
    }

    fn answers(&mut self, source: &str, service: &ServiceName, now: Instant) {
        self.answered_at = Some(now);
        if self.failure.take().is_some() {
            tracing::info!(%service, source, "the registry answers again");
        }
    }

    /// One line when an exception begins and one when it ends.
    fn log(&mut self, source: &str, service: &ServiceName) {
        let (kept, left_out) = (self.ledger.kept(), self.ledger.left_out());
        match (self.logged.0, kept) {
            (0, 1..) => {
                tracing::warn!(%service, source, kept, "the registry withdrew most endpoints at once, they are kept until checks or time confirm it");
            }
            (1.., 0) => {
                tracing::info!(%service, source, "no endpoint is kept against the registry any more");
            }
            _ => {}
        }
        match (self.logged.1, left_out) {
            (0, 1..) => {
                tracing::warn!(%service, source, left_out, "endpoints come and go, they are left out until they are calm");
            }
            (1.., 0) => tracing::info!(%service, source, "no endpoint is left out any more"),
            _ => {}
        }
        self.logged = (kept, left_out);
    }
}

/// True while the registry answers: what it said before it failed is remembered already, and grows old.
fn is_worth_keeping(standing: Standing) -> bool {
    match standing {
        Standing::Fresh | Standing::Absent | Standing::Stale(Staleness::Withdrawn) => true,
        Standing::Pending | Standing::Stale(_) => false,
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
            let mut running = Running::default();
            loop {
                tokio::select! {
                    want = wants.next() => match want {
                        Want::Begin(reporter) => {
                            running.begin(reporter.service().clone(), follow(reporter));
                        }
                        Want::End(service) => running.end(&service),
                    },
                    () = running.progress() => {}
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
