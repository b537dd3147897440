//! What is counted about endpoints: where they come from, how they do, and what checks find.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Names;
use super::ServiceLabel;
use crate::discovery::control_planes::Dropped;

/// The metrics of discovery. Services are those that are called here, sources and states those there are.
pub(crate) struct DiscoveryMetrics {
    endpoints: Family<StateLabels, Gauge>,
    stale: Family<ServiceLabel, Gauge>,
    ages: Family<SourceLabels, Gauge>,
    updates: Family<ServiceLabel, Counter>,
    failures: Family<SourceLabel, Counter>,
    checks: Family<CheckLabels, Counter>,
    dropped: Family<SourceLabels, Counter>,
    /// The control planes that wanted requests dropped, for whoever takes that away again.
    planes: Mutex<HashSet<Arc<str>>>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    service: Arc<str>,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SourceLabels {
    service: Arc<str>,
    source: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SourceLabel {
    source: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CheckLabels {
    service: Arc<str>,
    outcome: &'static str,
}

impl DiscoveryMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            endpoints: names.register(
                "mesh_discovery_endpoints",
                "Endpoints of a service, by how they do",
            ),
            stale: names.register(
                "mesh_discovery_stale",
                "Whether the endpoints of a service are the last good ones of a source that gives none now",
            ),
            ages: names.register(
                "mesh_discovery_age_seconds",
                "Time since a source last answered about a service",
            ),
            updates: names.register(
                "mesh_discovery_updates",
                "Times that the endpoints of a service, or what is known of them, changed",
            ),
            failures: names.register(
                "mesh_discovery_failures",
                "Times that a source stopped to answer about a service, or gave another reason",
            ),
            checks: names.register("mesh_health_checks", "Active checks of endpoints"),
            dropped: names.register(
                "mesh_discovery_dropped_requests",
                "Requests to a service that were not sent, because a control plane wants a share of them dropped",
            ),
            planes: Mutex::default(),
        }
    }

    /// Forgets how services do, for what follows says it anew: a service that is called no more leaves no series.
    pub(crate) fn begin(&self) {
        self.endpoints.clear();
        self.stale.clear();
        self.ages.clear();
    }

    /// Shows how many endpoints of a service are in a state.
    pub(crate) fn show_state(&self, service: &Arc<str>, state: &'static str, count: usize) {
        let service = Arc::clone(service);
        self.endpoints
            .get_or_create(&StateLabels { service, state })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Shows whether a service's endpoints are stale.
    pub(crate) fn show_stale(&self, service: &Arc<str>, is_stale: bool) {
        let service = Arc::clone(service);
        self.stale
            .get_or_create(&ServiceLabel { service })
            .set(i64::from(is_stale));
    }

    /// Shows how long ago a source last answered.
    pub(crate) fn show_age(&self, service: &Arc<str>, source: &Arc<str>, seconds: u64) {
        let (service, source) = (Arc::clone(service), Arc::clone(source));
        self.ages
            .get_or_create(&SourceLabels { service, source })
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Counts that the endpoints of a service changed.
    pub(crate) fn updated(&self, service: &Arc<str>, times: u64) {
        let service = Arc::clone(service);
        self.updates
            .get_or_create(&ServiceLabel { service })
            .inc_by(times);
    }

    /// Counts that a source stopped to answer.
    pub(crate) fn failed(&self, source: &Arc<str>) {
        let source = Arc::clone(source);
        self.failures.get_or_create(&SourceLabel { source }).inc();
    }

    /// Counts a request that a control plane wanted dropped.
    pub(crate) fn dropped(&self, dropped: &Dropped) {
        let (service, source) = (Arc::clone(&dropped.service), Arc::clone(&dropped.plane));
        self.planes.lock().insert(Arc::clone(&source));
        self.dropped
            .get_or_create(&SourceLabels { service, source })
            .inc();
    }

    /// Takes away what was counted of a service.
    pub(super) fn forget(&self, service: &Arc<str>) {
        let label = ServiceLabel {
            service: Arc::clone(service),
        };
        self.updates.remove(&label);
        for source in self.planes.lock().iter() {
            let (service, source) = (Arc::clone(service), Arc::clone(source));
            self.dropped.remove(&SourceLabels { service, source });
        }
        for outcome in [GOOD, BAD] {
            let service = Arc::clone(service);
            self.checks.remove(&CheckLabels { service, outcome });
        }
    }

    /// Counts an active check.
    pub(crate) fn checked(&self, service: &Arc<str>, is_good: bool) {
        let outcome = if is_good { GOOD } else { BAD };
        let service = Arc::clone(service);
        self.checks
            .get_or_create(&CheckLabels { service, outcome })
            .inc();
    }
}

const GOOD: &str = "success";
const BAD: &str = "failure";
