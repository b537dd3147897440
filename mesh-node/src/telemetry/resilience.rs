//! What keeps calls alive, as it stands when it is asked for: nothing is counted here while calls pass.
//!
//! Labels are services that are called and routes of the configuration, so there are at most as many series as there are
//! pairs of these. A series without a route is of the service's own layers, which all its routes share that say nothing else.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::State;
use mesh_resilience::bulkhead::Bulkhead;
use mesh_resilience::hedge::Hedge;
use mesh_resilience::limit::Verdict;
use mesh_resilience::retry::Budget;
use mesh_resilience::shed::Snapshot;
use prometheus_client::encoding::EncodeLabel as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::LabelSetEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Names;
use super::ServiceLabel;

/// The metrics of layers. Each look at them shows them anew, so a service that is called no more leaves no series.
pub(crate) struct ResilienceMetrics {
    breakers: Family<LaneLabels, Gauge>,
    opened: Family<LaneLabels, Counter>,
    first_attempts: Family<LaneLabels, Gauge>,
    retries: Family<LaneLabels, Gauge>,
    allowed_retries: Family<LaneLabels, Gauge>,
    running: Family<LaneLabels, Gauge>,
    waiting: Family<LaneLabels, Gauge>,
    max_running: Family<LaneLabels, Gauge>,
    max_waiting: Family<LaneLabels, Gauge>,
    hedge_delay: Family<LaneLabels, Gauge<f64, AtomicU64>>,
    ejected: Family<ReasonLabels, Gauge>,
    ignores_health: Family<ServiceLabel, Gauge>,
    shed_limit: Family<Nothing, Gauge>,
    shed_running: Family<Nothing, Gauge>,
    shed: Family<Nothing, Counter>,
    limited_callers: Family<Nothing, Gauge>,
    route_calls_left: Family<RouteLabel, Gauge>,
}

/// A service, and a route where it is about the calls of that alone.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct LaneLabels {
    pub(crate) service: Arc<str>,
    pub(crate) route: Option<Arc<str>>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabels {
    service: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabel {
    route: Arc<str>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Nothing;

impl EncodeLabelSet for LaneLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(route) = &self.route {
            ("route", &**route).encode(encoder.encode_label())?;
        }
        ("service", &*self.service).encode(encoder.encode_label())
    }
}

impl EncodeLabelSet for Nothing {
    fn encode(&self, _: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        Ok(())
    }
}

impl ResilienceMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            breakers: names.register(
                "circuit_breaker_state",
                "Circuit breaker of a service, or of a route to it: 0 closed, 1 open, 2 half-open",
            ),
            opened: names.register(
                "mesh_resilience_circuit_breaker_opened",
                "Times that a circuit breaker opened",
            ),
            first_attempts: names.register(
                "mesh_resilience_retry_budget_requests",
                "Calls within the window of the retry budget",
            ),
            retries: names.register(
                "mesh_resilience_retry_budget_retries",
                "Retries within the window of the retry budget",
            ),
            allowed_retries: names.register(
                "mesh_resilience_retry_budget_allowed",
                "Retries that the window of the retry budget allows, those made included",
            ),
            running: names.register(
                "mesh_resilience_bulkhead_running",
                "Calls that have a place in the bulkhead",
            ),
            waiting: names.register(
                "mesh_resilience_bulkhead_waiting",
                "Calls that wait for a place in the bulkhead",
            ),
            max_running: names.register(
                "mesh_resilience_bulkhead_max_running",
                "Places that the bulkhead has",
            ),
            max_waiting: names.register(
                "mesh_resilience_bulkhead_max_waiting",
                "Calls that may wait for a place in the bulkhead",
            ),
            hedge_delay: names.register(
                "mesh_resilience_hedge_delay_seconds",
                "Time after which a call is sent a second time",
            ),
            ejected: names.register(
                "mesh_resilience_ejected_endpoints",
                "Endpoints that get no calls for a while since calls to them failed, by what they were ejected for",
            ),
            ignores_health: names.register(
                "mesh_resilience_health_ignored",
                "Whether so few endpoints of a service are healthy that health is ignored",
            ),
            shed_limit: names.register(
                "mesh_resilience_shed_limit",
                "Calls that may be under way at this node's application",
            ),
            shed_running: names.register(
                "mesh_resilience_shed_running",
                "Calls that are under way at this node's application",
            ),
            shed: names.register(
                "mesh_resilience_shed_requests",
                "Calls that were refused since the application had too many",
            ),
            limited_callers: names.register(
                "mesh_rate_limit_callers",
                "Callers whose requests this node counts",
            ),
            route_calls_left: names.register(
                "mesh_route_rate_limit_remaining",
                "Calls that a route may still have in its window",
            ),
        }
    }

    /// Forgets all, for what follows says it anew.
    pub(crate) fn begin(&self) {
        self.breakers.clear();
        self.opened.clear();
        for lanes in [
            &self.first_attempts,
            &self.retries,
            &self.allowed_retries,
            &self.running,
            &self.waiting,
            &self.max_running,
            &self.max_waiting,
        ] {
            lanes.clear();
        }
        self.hedge_delay.clear();
        self.ejected.clear();
        self.ignores_health.clear();
        self.shed.clear();
    }

    pub(crate) fn show_breaker(&self, lane: &LaneLabels, breaker: &Breaker, now: Instant) {
        let seen = breaker.snapshot(now);
        let state = match seen.state {
            State::Open => 1,
            State::HalfOpen => 2,
            _ => 0,
        };
        self.breakers.get_or_create(lane).set(state);
        self.opened.get_or_create(lane).inc_by(seen.opened);
    }

    pub(crate) fn show_budget(&self, lane: &LaneLabels, budget: &Budget, now: Instant) {
        let seen = budget.snapshot(now);
        show(&self.first_attempts, lane, seen.requests);
        show(&self.retries, lane, seen.retries);
        show(&self.allowed_retries, lane, seen.allowed);
    }

    pub(crate) fn show_bulkhead(&self, lane: &LaneLabels, bulkhead: &Bulkhead) {
        let seen = bulkhead.snapshot();
        for (family, count) in [
            (&self.running, seen.running),
            (&self.waiting, seen.waiting),
            (&self.max_running, seen.max_concurrent),
            (&self.max_waiting, seen.max_waiting),
        ] {
            show(family, lane, u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn show_hedge(&self, lane: &LaneLabels, hedge: &Hedge, now: Instant) {
        let delay = hedge.snapshot(now).delay.as_secs_f64();
        self.hedge_delay.get_or_create(lane).set(delay);
    }

    /// Shows one ejected endpoint more.
    pub(crate) fn show_ejected(&self, service: &Arc<str>, reason: &'static str) {
        let service = Arc::clone(service);
        self.ejected
            .get_or_create(&ReasonLabels { service, reason })
            .inc();
    }

    pub(crate) fn show_health_ignored(&self, service: &Arc<str>, is_ignored: bool) {
        let service = Arc::clone(service);
        show(
            &self.ignores_health,
            &ServiceLabel { service },
            u64::from(is_ignored),
        );
    }

    pub(crate) fn show_shed(&self, seen: &Snapshot) {
        show(&self.shed_limit, &Nothing, u64::from(seen.limit));
        show(&self.shed_running, &Nothing, u64::from(seen.in_flight));
        self.shed.get_or_create(&Nothing).inc_by(seen.shed);
    }

    pub(crate) fn show_callers(&self, callers: usize) {
        let callers = u64::try_from(callers).unwrap_or(u64::MAX);
        show(&self.limited_callers, &Nothing, callers);
    }

    pub(crate) fn show_route_limit(&self, route: &Arc<str>, verdict: &Verdict) {
        let route = Arc::clone(route);
        let left = u64::from(verdict.remaining);
        show(&self.route_calls_left, &RouteLabel { route }, left);
    }
}

fn show<L>(family: &Family<L, Gauge>, labels: &L, value: u64)
where
    L: Clone + std::hash::Hash + Eq,
{
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    family.get_or_create(labels).set(value);
}
