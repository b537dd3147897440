//! The services that calls are made to: those of the configuration from the start, others from their first call on.
//!
//! A known service is found without a lock. A name that is not in the table is looked up in the sources; only one that a
//! source knows gets in, so nobody can fill the table with names that mean nothing. How many names are looked up is bounded
//! as well, and a service that was not called for a while is forgotten, with its connections and its subscription.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_core::future::BoxFuture;
use mesh_discovery::Discover;
use mesh_discovery::ServiceName;
use mesh_discovery::SourceReport;
use mesh_discovery::Staleness;
use mesh_discovery::Standing;
use mesh_discovery::Watch;
use mesh_transport::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::stack::now;

/// Makes the service of that name, which is where the watch says, and its work: what runs for as long as it is known.
pub(crate) type Make<S> =
    dyn Fn(&ServiceName, Watch) -> Result<(Arc<S>, Work), Error> + Send + Sync;

/// What runs for a service.
pub(crate) type Work = BoxFuture<'static, ()>;

/// The services of a node.
pub(crate) struct Services<S> {
    table: ArcSwap<Table<S>>,
    /// Names that were looked up lately; held while the table changes.
    asked: Mutex<HashMap<Box<str>, Instant>>,
    /// One for each call that waits for a lookup.
    waiting: Semaphore,
    discovery: Arc<dyn Discover>,
    make: Box<Make<S>>,
    tasks: Tasks,
    /// Whether there is a source that may know more services than the configuration names.
    looks_up: bool,
}

type Table<S> = HashMap<Box<str>, Arc<Entry<S>>>;

struct Entry<S> {
    service: Arc<S>,
    /// It is in the configuration, so it stays.
    is_fixed: bool,
    /// How the list stands.
    watch: Watch,
    /// It was called since this was looked at last.
    is_used: AtomicBool,
    /// Dropped with the entry, which ends its work.
    _work: oneshot::Sender<()>,
}

/// Why a service can't be called.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub(crate) enum NotFound {
    /// No source knows it.
    Unknown,
    /// No source has answered yet, for this reason.
    NoAnswer(String),
    /// Too many names are looked up, or too many services are known.
    TooMany,
}

impl<S: Send + Sync + 'static> Services<S> {
    /// The services `fixed` from the start, and where `looks_up` is true any other that `discovery` knows.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the layers of a service can't be built.
    pub(crate) fn new(
        fixed: &[ServiceName],
        (discovery, looks_up): (Arc<dyn Discover>, bool),
        make: Box<Make<S>>,
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let services = Self {
            table: ArcSwap::default(),
            asked: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
            discovery,
            make,
            tasks,
            looks_up,
        };
        let mut table = Table::<S>::new();
        for name in fixed {
            let watch = services.discovery.watch(name);
            table.insert(name.as_str().into(), services.entry(name, watch, true)?);
        }
        services.table.store(Arc::new(table));
        Ok(services)
    }

    /// The service of that name, where it is known; takes no lock.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<S>> {
        let table = self.table.load();
        let entry = table.get(name)?;
        if !entry.is_used.load(Ordering::Relaxed) {
            entry.is_used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&entry.service))
    }

    /// The service of that name; one that is not known yet is looked up, which takes as long as its sources take to
    /// answer, 5 s at most.
    ///
    /// # Errors
    ///
    /// [`NotFound`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn find(&self, name: &str) -> Result<Arc<S>, NotFound> {
        if let Some(service) = self.get(name) {
            return Ok(service);
        }
        if !self.looks_up {
            return Err(NotFound::Unknown);
        }
        let name = ServiceName::parse(name).ok().ok_or(NotFound::Unknown)?;
        let _waiting = self.waiting.try_acquire().ok().ok_or(NotFound::TooMany)?;
        self.note(&name)?;
        let mut watch = self.discovery.watch(&name);
        match tokio::time::timeout(FIRST_ANSWER, watch.resolved()).await {
            Ok(Ok(endpoints)) if endpoints.is_known() => self.add(&name, watch),
            Ok(Ok(_)) => Err(NotFound::Unknown),
            Ok(Err(_closed)) => Err(NotFound::TooMany),
            Err(_elapsed) => Err(NotFound::NoAnswer(self.why(&name))),
        }
    }

    /// All services, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<S>> {
        let table = self.table.load();
        let mut all: Vec<_> = table.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        let services = all.into_iter().map(|(_, entry)| Arc::clone(&entry.service));
        services.collect()
    }

    /// The names of the services, for whoever mistyped one; not all where there are many.
    pub(crate) fn known(&self) -> String {
        let table = self.table.load();
        let mut names: Vec<&str> = table.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        let more = names.len().saturating_sub(MAX_NAMED);
        names.truncate(MAX_NAMED);
        match (names.is_empty(), more) {
            (true, _) => "none".to_owned(),
            (false, 0) => names.join(", "),
            (false, more) => format!("{} and {more} more", names.join(", ")),
        }
    }

    /// The services of the configuration of which no source has said anything since the start.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let is_silent = |entry: &Entry<S>| {
            let restored = Standing::Stale(Staleness::Restored);
            let standing = entry.watch.current().standing();
            entry.is_fixed && (standing == Standing::Pending || standing == restored)
        };
        let table = self.table.load();
        let silent = table.iter().filter(|(_, entry)| is_silent(entry));
        let mut names: Vec<_> = silent.map(|(name, _)| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Whether services are looked up that the configuration does not name.
    pub(crate) fn looks_up(&self) -> bool {
        self.looks_up
    }

    /// What each source says of a service that is in the table.
    pub(crate) fn reports(&self, service: &str) -> Vec<SourceReport> {
        let name = ServiceName::parse(service).ok();
        name.map_or_else(Vec::new, |name| self.discovery.reports(&name))
    }

    /// Forgets the services that were not called since this was done last, and what was looked up in vain. To be done every
    /// [`FORGET_EVERY`].
    pub(crate) fn forget_unused(&self) {
        let mut asked = self.asked.lock();
        forget_asked(&mut asked, now());
        let before = self.table.load_full();
        let is_kept = |entry: &Entry<S>| {
            let was_used = entry.is_used.swap(false, Ordering::Relaxed);
            entry.is_fixed || was_used || is_held(entry)
        };
        let (mut kept, left): (Table<S>, Table<S>) = before
            .iter()
            .map(|(name, entry)| (name.clone(), Arc::clone(entry)))
            .partition(|(_, entry)| is_kept(entry));
        if left.is_empty() {
            return;
        }
        self.table.store(Arc::new(kept.clone()));
        // A call that found one before that goes on with it, so it must stay alive, and be the only one of its name.
        let (taken, left): (Table<S>, Table<S>) =
            left.into_iter().partition(|(_, entry)| is_held(entry));
        if !taken.is_empty() {
            kept.extend(taken);
            self.table.store(Arc::new(kept));
        }
        drop(asked);
        let count = left.len();
        tracing::info!(count, "services that nobody calls are forgotten");
    }

    fn add(&self, name: &ServiceName, watch: Watch) -> Result<Arc<S>, NotFound> {
        let mut asked = self.asked.lock();
        // Of calls that waited together the first has added it.
        if let Some(service) = self.get(name.as_str()) {
            return Ok(service);
        }
        let before = self.table.load();
        if before.values().filter(|entry| !entry.is_fixed).count() >= MAX_SERVICES {
            return Err(NotFound::TooMany);
        }
        let entry = self.entry(name, watch, false).map_err(|error| {
            tracing::error!(service = %name, error = &error as &dyn std::error::Error, "a service can't be set up");
            NotFound::NoAnswer(error.to_string())
        })?;
        let service = Arc::clone(&entry.service);
        let mut table = Table::<S>::clone(&before);
        table.insert(name.as_str().into(), entry);
        self.table.store(Arc::new(table));
        asked.remove(name.as_str());
        drop(asked);
        tracing::info!(service = %name, "a service is called for the first time");
        Ok(service)
    }

    fn entry(
        &self,
        name: &ServiceName,
        watch: Watch,
        is_fixed: bool,
    ) -> Result<Arc<Entry<S>>, Error> {
        let (service, work) = (self.make)(name, watch.clone())?;
        let (alive, ended) = oneshot::channel::<()>();
        self.tasks.start(async move {
            tokio::select! {
                () = work => {}
                _ = ended => {}
            }
        });
        Ok(Arc::new(Entry {
            service,
            is_fixed,
            watch,
            is_used: AtomicBool::new(true),
            _work: alive,
        }))
    }

    /// Notes that a name is looked up, unless too many were.
    fn note(&self, name: &ServiceName) -> Result<(), NotFound> {
        let (mut asked, now) = (self.asked.lock(), now());
        if asked.len() >= MAX_ASKED && !asked.contains_key(name.as_str()) {
            forget_asked(&mut asked, now);
            if asked.len() >= MAX_ASKED {
                return Err(NotFound::TooMany);
            }
        }
        asked.insert(name.as_str().into(), now);
        Ok(())
    }

    /// Why no source has answered.
    fn why(&self, name: &ServiceName) -> String {
        let reports = self.discovery.reports(name);
        let silent = reports.iter().filter(|report| report.answered_at.is_none());
        let reasons: Vec<String> = silent
            .map(|report| {
                let why = report.failure.as_deref().unwrap_or("no answer yet");
                format!("{}: {why}", report.source)
            })
            .collect();
        reasons.join("; ")
    }
}

impl<S> fmt::Debug for Services<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.load();
        f.debug_set().entries(table.keys()).finish()
    }
}

/// Whether a call that is under way holds the service too.
fn is_held<S>(entry: &Entry<S>) -> bool {
    Arc::strong_count(&entry.service) > 1
}

fn forget_asked(asked: &mut HashMap<Box<str>, Instant>, now: Instant) {
    asked.retain(|_, at| now.saturating_duration_since(*at) < REMEMBER_ASKED);
}

/// How long a call waits for the first answer of a registry.
pub(crate) const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How often services are looked for that were not called; one is forgotten after that long at least, and twice that
/// long at most.
pub(crate) const FORGET_EVERY: Duration = Duration::from_mins(5);
/// Enough for a person to read.
const MAX_NAMED: usize = 20;
/// Services beside those of the configuration: some 50 KiB each, connections not counted.
const MAX_SERVICES: usize = 1000;
/// Names that no source knew, of the last minute. A registry goes on being asked for each of them for about as long.
const MAX_ASKED: usize = 256;
const REMEMBER_ASKED: Duration = Duration::from_mins(1);
/// Calls that wait for an answer of a registry at a time.
const MAX_WAITING: usize = 1024;

#[cfg(test)]
mod tests;
