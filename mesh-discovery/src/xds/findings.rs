//! What was received besides endpoints.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use arc_swap::ArcSwap;

use super::drops::DropOverload;
use super::drops::dropped_by;
use super::ignored::Ignored;
use super::ignored::IgnoredField;
use super::topic::Verdict;
use crate::name::ServiceName;

/// What a source received besides endpoints, for people and for whoever sends requests. Clones are the same.
#[derive(Clone, Default)]
pub struct Findings(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Read at every request, so without a lock. Changed by the one stream alone.
    drops: ArcSwap<Drops>,
}

/// Services of which the control plane wants requests dropped.
type Drops = HashMap<String, Arc<[DropOverload]>>;

#[derive(Default)]
struct Inner {
    ignored: Ignored,
    counts: Counts,
    server: Option<Arc<str>>,
}

/// What happened since the source began.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams that were begun.
    pub streams: u64,
    /// Responses that were taken as a whole (ACK).
    pub accepted: u64,
    /// Responses of which something was refused (NACK).
    pub refused: u64,
    /// Responses that were bad in the same way as one before, and were not answered again.
    pub refused_again: u64,
}

impl Findings {
    /// The fields that were received and have no effect, each once, by name.
    pub fn ignored(&self) -> Vec<IgnoredField> {
        self.inner().ignored.list()
    }

    /// Which shares of the requests to a service the control plane wants dropped; none where it says nothing.
    pub fn drops(&self, service: &ServiceName) -> Arc<[DropOverload]> {
        let drops = self.0.drops.load();
        let drops = drops.get(service.as_str()).map(Arc::clone);
        drops.unwrap_or_default()
    }

    /// Which share a request to a service that is made now belongs to, if to one; `random` gives a new number at each call.
    /// Takes no lock. See [`dropped_by`].
    pub fn drops_now(
        &self,
        service: &ServiceName,
        random: impl FnMut() -> u64,
    ) -> Option<DropOverload> {
        let drops = self.0.drops.load();
        let drops = drops.get(service.as_str())?;
        dropped_by(drops, random).cloned()
    }

    /// What happened since the source began.
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// The server that is asked now, as it was configured; none while there is no stream.
    pub fn server(&self) -> Option<Arc<str>> {
        self.inner().server.clone()
    }

    pub(super) fn set_drops(&self, service: &str, drops: &[DropOverload]) {
        let before = self.0.drops.load_full();
        if before.get(service).map_or(&[][..], |drops| drops) == drops {
            return;
        }
        let mut after = Drops::clone(&before);
        if drops.is_empty() {
            after.remove(service);
        } else {
            after.insert(service.to_owned(), Arc::from(drops));
        }
        self.0.drops.store(Arc::new(after));
    }

    pub(super) fn begun(&self, server: &Arc<str>) {
        let mut inner = self.inner();
        inner.counts.streams += 1;
        inner.server = Some(Arc::clone(server));
    }

    pub(super) fn ended(&self) {
        self.inner().server = None;
    }

    pub(super) fn count(&self, verdict: Verdict) {
        let counts = &mut self.inner().counts;
        match verdict {
            Verdict::Accepted => counts.accepted += 1,
            Verdict::Refused => counts.refused += 1,
            Verdict::RefusedAgain => counts.refused_again += 1,
        }
    }

    /// Lets `read` note what it ignores.
    pub(super) fn while_reading<T>(&self, read: impl FnOnce(&mut Ignored) -> T) -> T {
        read(&mut self.inner().ignored)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is in there is whole between any two statements.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("Findings")
            .field("server", &inner.server)
            .field("counts", &inner.counts)
            .finish_non_exhaustive()
    }
}
