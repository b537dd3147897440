//! Which services are watched, for sources that ask for a service only while somebody watches it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::future::AbortHandle;
use futures_util::future::Abortable;
use futures_util::future::abortable;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::endpoint::Endpoints;
use crate::name::ServiceName;
use crate::watch::Publisher;
use crate::watch::Watch;

/// One service that is watched, with what its source keeps of it.
#[derive(Debug)]
pub(crate) struct Subscription<S> {
    pub(crate) service: ServiceName,
    pub(crate) publisher: Publisher,
    state: Mutex<S>,
    is_over: AtomicBool,
}

/// The services that are watched.
#[derive(Debug)]
pub(crate) struct Subscriptions<S> {
    table: Mutex<Table<S>>,
    changed: Notify,
}

#[derive(Debug)]
struct Table<S> {
    entries: HashMap<ServiceName, Entry<S>>,
    /// What [`Changes`] has not given yet, in order: a service that ends and begins anew does so in this order.
    changes: VecDeque<Change<S>>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry<S> {
    subscription: Arc<Subscription<S>>,
    /// Nobody watched it when this was looked at last.
    is_idle: bool,
}

/// A change in what is watched.
#[derive(Debug)]
pub(crate) enum Change<S> {
    Begin(Arc<Subscription<S>>),
    End(ServiceName),
}

/// The other end of [`Subscriptions`]: gives the changes, and ends what nobody watches. Dropping it ends all watches.
#[derive(Debug)]
pub(crate) struct Changes<S> {
    subscriptions: Arc<Subscriptions<S>>,
    swept: Instant,
}

impl<S> Subscriptions<S> {
    pub(crate) fn new() -> (Arc<Self>, Changes<S>) {
        let subscriptions = Arc::new(Self {
            table: Mutex::new(Table {
                entries: HashMap::new(),
                changes: VecDeque::new(),
                is_closed: false,
            }),
            changed: Notify::new(),
        });
        let changes = Changes {
            subscriptions: Arc::clone(&subscriptions),
            swept: now(),
        };
        (subscriptions, changes)
    }

    /// Watches a service; `begin` gives what it begins with, unless it is watched already.
    pub(crate) fn watch(
        &self,
        service: &ServiceName,
        begin: impl FnOnce() -> (Endpoints, S),
    ) -> Watch {
        let mut table = self.table();
        if let Some(entry) = table.entries.get(service) {
            return entry.subscription.publisher.watch();
        }
        // threat 51
        if table.is_closed || table.entries.len() >= MAX_SERVICES {
            return Watch::closed(Endpoints::pending());
        }
        let (endpoints, state) = begin();
        let subscription = Arc::new(Subscription {
            service: service.clone(),
            publisher: Publisher::new(endpoints),
            state: Mutex::new(state),
            is_over: AtomicBool::new(false),
        });
        let watch = subscription.publisher.watch();
        let entry = Entry {
            subscription: Arc::clone(&subscription),
            is_idle: false,
        };
        table.entries.insert(service.clone(), entry);
        table.changes.push_back(Change::Begin(subscription));
        drop(table);
        self.wake();
        watch
    }

    pub(crate) fn get(&self, service: &ServiceName) -> Option<Arc<Subscription<S>>> {
        let table = self.table();
        let entry = table.entries.get(service)?;
        Some(Arc::clone(&entry.subscription))
    }

    /// Makes [`Changes::next`] ask again when it is to be woken.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    fn table(&self) -> MutexGuard<'_, Table<S>> {
        // Nothing panics while the lock is held, and the table is whole between any two statements.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Subscription<S> {
    pub(crate) fn state(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the source was told that nobody watches it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl<S> Changes<S> {
    /// Waits for the next change. `pass` is called whenever something may be due, and says when something will be.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that is not returned is returned by the next call.
    pub(crate) async fn next(&mut self, pass: impl Fn(Instant) -> Option<Instant>) -> Change<S> {
        loop {
            let now = now();
            if let Some(change) = self.take(now) {
                return change;
            }
            let sweep = self.swept + LINGER;
            let due = pass(now).map_or(sweep, |due| due.min(sweep));
            tokio::select! {
                () = self.subscriptions.changed.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    fn take(&mut self, now: Instant) -> Option<Change<S>> {
        let mut table = self.subscriptions.table();
        if now >= self.swept + LINGER {
            self.swept = now;
            table.sweep();
        }
        table.changes.pop_front()
    }
}

impl<S> Drop for Changes<S> {
    fn drop(&mut self) {
        let mut table = self.subscriptions.table();
        table.is_closed = true;
        table.entries.clear();
        table.changes.clear();
    }
}

impl<S> Table<S> {
    /// Ends what was idle twice in a row.
    fn sweep(&mut self) {
        let changes = &mut self.changes;
        self.entries.retain(|service, entry| {
            let was_idle = entry.is_idle;
            entry.is_idle = !entry.subscription.publisher.is_watched();
            let is_over = was_idle && entry.is_idle;
            if is_over {
                entry.subscription.is_over.store(true, Ordering::Release);
                changes.push_back(Change::End(service.clone()));
            }
            !is_over
        });
    }
}

/// The work for each service that is watched.
#[derive(Debug)]
pub(crate) struct Running<F> {
    futures: FuturesUnordered<Abortable<F>>,
    ends: HashMap<ServiceName, AbortHandle>,
}

impl<F: Future<Output = ()>> Running<F> {
    pub(crate) fn begin(&mut self, service: ServiceName, work: F) {
        let (work, end) = abortable(work);
        self.futures.push(work);
        self.ends.insert(service, end);
    }

    pub(crate) fn end(&mut self, service: &ServiceName) {
        if let Some(end) = self.ends.remove(service) {
            end.abort();
        }
    }

    /// Does the work; comes back now and then.
    pub(crate) async fn progress(&mut self) {
        if self.futures.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl<F> Default for Running<F> {
    fn default() -> Self {
        Self {
            futures: FuturesUnordered::new(),
            ends: HashMap::new(),
        }
    }
}

/// The clock of the runtime, so that tests can pause it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The most services that are watched at a time: callers may ask for any name they like.
pub(crate) const MAX_SERVICES: usize = 10_000;
/// How often services that nobody watches are looked for; one is given up when it was idle twice.
const LINGER: Duration = Duration::from_secs(30);
