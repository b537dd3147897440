//! One interface to every source of endpoints: a snapshot now, and its changes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::endpoint::Endpoints;
use crate::endpoint::Standing;
use crate::name::ServiceName;
use crate::report::SourceReport;

/// Something that knows where services are.
///
/// Object safe: a program composes its sources as `Arc<dyn Discover>`.
pub trait Discover: Send + Sync {
    /// Begins to watch a service. Returns at once; a service that is not known (yet) has the snapshot
    /// [`Endpoints::pending`] or [`Endpoints::absent`] and changes when it becomes known. A source asks its registry for
    /// a service only while somebody holds a watch of it.
    fn watch(&self, service: &ServiceName) -> Watch;

    /// What each source behind this one says of a service that is watched, in the order in which they are asked: why the
    /// endpoints are these.
    fn reports(&self, service: &ServiceName) -> Vec<SourceReport>;
}

/// The endpoints of one service: what they are now, and when they change. Each clone is a watch of its own.
///
/// Keep it as long as the service is called; asking the source anew for each request takes its lock.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The newest snapshot, apart from the news of it, so that nobody who reads waits for who writes.
    shared: Arc<ArcSwap<Endpoints>>,
    news: watch::Receiver<()>,
    latest: Endpoints,
}

impl Watch {
    /// The newest snapshot, for whoever holds the watch behind a shared reference. Takes no lock.
    pub fn current(&self) -> Endpoints {
        Endpoints::clone(&self.shared.load())
    }

    /// The newest snapshot, by one atomic load when nothing has changed; for the path of requests. Takes no lock.
    pub fn latest(&mut self) -> &Endpoints {
        // A closed channel may still hold a change that this watch has not seen.
        if self.news.has_changed().unwrap_or(true) {
            self.take();
        }
        &self.latest
    }

    /// Waits for a snapshot that this watch has not given yet; several changes may come as one.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the source is gone; [`Watch::current`] goes on giving the last snapshot.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that is not returned is returned by the next call.
    pub async fn changed(&mut self) -> Result<&Endpoints, Closed> {
        if self.news.changed().await.is_err() {
            return Err(Closed);
        }
        self.take();
        Ok(&self.latest)
    }

    /// Waits for the first answer of the source, where there is none yet; resolves a service now.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the source is gone before it answered.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn resolved(&mut self) -> Result<&Endpoints, Closed> {
        while self.latest().standing() == Standing::Pending {
            self.changed().await?;
        }
        Ok(&self.latest)
    }

    /// A watch that stays as it is and ends at the first call of [`Watch::changed`].
    pub fn closed(endpoints: Endpoints) -> Self {
        Publisher::new(endpoints).watch()
    }

    fn take(&mut self) {
        // First the news, then the snapshot: what comes between the two is news again.
        self.news.mark_unchanged();
        self.latest = self.current();
    }
}

/// The other end of [`Watch`], for those who write a source.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<ArcSwap<Endpoints>>,
    news: watch::Sender<()>,
    /// Taken by those who publish, one after the other.
    turn: Mutex<()>,
}

impl Publisher {
    /// Begins with a snapshot.
    pub fn new(endpoints: Endpoints) -> Self {
        Self {
            shared: Arc::new(ArcSwap::from_pointee(endpoints)),
            news: watch::Sender::new(()),
            turn: Mutex::new(()),
        }
    }

    /// Publishes a snapshot; one that equals the present one wakes nobody and is dropped. True if it was new.
    pub fn publish(&self, endpoints: Endpoints) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = **self.shared.load() != endpoints;
        if is_new {
            self.shared.store(Arc::new(endpoints));
            self.news.send_replace(());
        }
        is_new
    }

    /// A new watch, which has not seen the present snapshot change.
    pub fn watch(&self) -> Watch {
        // First the news, then the snapshot: what comes between the two is news again.
        let news = self.news.subscribe();
        Watch {
            latest: self.current(),
            shared: Arc::clone(&self.shared),
            news,
        }
    }

    /// The present snapshot.
    pub fn current(&self) -> Endpoints {
        Endpoints::clone(&self.shared.load())
    }

    /// Waits until nobody holds a watch.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn unwatched(&self) {
        self.news.closed().await;
    }

    /// True while somebody holds a watch.
    pub fn is_watched(&self) -> bool {
        self.news.receiver_count() > 0
    }
}

/// The source behind a watch is gone; its last snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source of endpoints is gone; watch the service anew")]
#[non_exhaustive]
pub struct Closed;
