//! What is counted about writes that can be sent again.

use mesh_resilience::once::Observe;
use mesh_resilience::once::Snapshot;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::Names;

/// The metrics of the memory of writes.
#[derive(Clone, Debug)]
pub(crate) struct OnceMetrics {
    answered: Counter,
    unknown: Counter,
    mismatched: Counter,
    stale: Counter,
    evicted: Counter,
    entries: Gauge,
    bytes: Gauge,
}

impl OnceMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            answered: names.register(
                "mesh_once_answered",
                "Repeats of writes that were answered from memory",
            ),
            unknown: names.register(
                "mesh_once_unknown",
                "Writes, and repeats of them, of which nobody knows whether they were executed",
            ),
            mismatched: names.register(
                "mesh_once_mismatched",
                "Idempotency keys that came with another request than before",
            ),
            stale: names.register(
                "mesh_once_stale",
                "Attempts at writes that were not run for their lease, and got a new one",
            ),
            evicted: names.register(
                "mesh_once_evicted",
                "Writes that were forgotten before their time, to make room",
            ),
            entries: names.register("mesh_once_entries", "Writes that are remembered"),
            bytes: names.register(
                "mesh_once_bytes",
                "Bytes of the answers of writes that are kept",
            ),
        }
    }

    /// Shows what is held.
    pub(crate) fn show(&self, held: &Snapshot) {
        self.entries
            .set(i64::try_from(held.entries).unwrap_or(i64::MAX));
        self.bytes
            .set(i64::try_from(held.bytes).unwrap_or(i64::MAX));
    }
}

impl Observe for OnceMetrics {
    fn answered(&self) {
        self.answered.inc();
    }

    fn unknown(&self) {
        self.unknown.inc();
    }

    fn mismatched(&self) {
        self.mismatched.inc();
    }

    fn stale(&self) {
        self.stale.inc();
    }

    fn evicted(&self) {
        self.evicted.inc();
    }
}
