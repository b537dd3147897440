//! What is counted about rate limits.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Names;

/// The metrics of the rate limit of callers.
#[derive(Clone)]
pub(crate) struct LimitMetrics {
    decisions: Family<DecisionLabels, Counter>,
    store: Family<StoreLabel, Gauge>,
    failures: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DecisionLabels {
    result: &'static str,
    by: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StoreLabel {
    state: &'static str,
}

impl LimitMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            decisions: names.register(
                "mesh_rate_limit_decisions",
                "Requests that a rate limit allowed or not, by who decided: this node, its share, or a store",
            ),
            store: names.register(
                "mesh_rate_limit_store",
                "Whether the store of the rate limit is in this state",
            ),
            failures: names.register(
                "mesh_rate_limit_store_failures",
                "Requests about which the store of the rate limit was asked in vain",
            ),
        }
    }

    /// Counts what was decided about a request, and by whom.
    pub(crate) fn decided(&self, (result, by): (&'static str, &'static str)) {
        self.decisions
            .get_or_create(&DecisionLabels { result, by })
            .inc();
    }

    /// Shows whether the store is away.
    pub(crate) fn show_store(&self, is_away: bool) {
        for (state, is_so) in [("up", !is_away), ("away", is_away)] {
            self.store
                .get_or_create(&StoreLabel { state })
                .set(i64::from(is_so));
        }
    }

    /// Counts that the store gave no answer.
    pub(crate) fn store_failed(&self) {
        self.failures.inc();
    }
}

impl fmt::Debug for LimitMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitMetrics").finish_non_exhaustive()
    }
}
