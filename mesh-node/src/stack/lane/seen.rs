//! What people see of a lane: the state of each layer, for pages and metrics.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::Share;
use mesh_resilience::breaker::State;
use mesh_resilience::bulkhead::Bulkhead;
use mesh_resilience::hedge::Hedge;
use mesh_resilience::retry::Budget;
use serde_json::Value;
use serde_json::json;

use super::Layers;
use crate::route::Route;
use crate::telemetry::LaneLabels;
use crate::telemetry::ResilienceMetrics;

/// The layers of a lane that have a state and are its own. A route's lane shares the others with its service, where they are
/// shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Whose lane it is; nothing for the service's own.
    pub(crate) route: Option<Arc<str>>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) budget: Option<Budget>,
    pub(crate) bulkhead: Option<Bulkhead>,
    pub(crate) hedge: Option<Hedge>,
}

impl Seen {
    /// A service's own lane.
    pub(crate) fn all(layers: &Layers) -> Self {
        Self {
            route: None,
            breaker: Some(layers.breaker.clone()),
            budget: Some(layers.budget.clone()),
            bulkhead: Some(layers.bulkhead.clone()),
            hedge: layers.hedge.clone(),
        }
    }

    /// The lane of a route.
    pub(crate) fn of_route(route: &Route, layers: &Layers) -> Self {
        let own = &route.overrides;
        let breaker = own.circuit_breaker.as_ref();
        let bulkhead = own.bulkhead.as_ref();
        Self {
            route: Some(Arc::clone(&route.name)),
            breaker: breaker.map(|_| layers.breaker.clone()),
            budget: own.retry.as_ref().map(|_| layers.budget.clone()),
            bulkhead: bulkhead.map(|_| layers.bulkhead.clone()),
            hedge: own.hedge.as_ref().and_then(|_| layers.hedge.clone()),
        }
    }

    /// As JSON; a layer that is shared is `null`.
    pub(crate) fn page(&self, now: Instant) -> Value {
        json!({
            "route": self.route.as_deref(),
            "circuitBreaker": self.breaker.as_ref().map(|known| breaker(known, now)),
            "retryBudget": self.budget.as_ref().map(|known| budget(known, now)),
            "bulkhead": self.bulkhead.as_ref().map(bulkhead),
            "hedge": self.hedge.as_ref().map(|known| hedge(known, now)),
        })
    }

    /// Shows it in the metrics.
    pub(crate) fn measure(&self, metrics: &ResilienceMetrics, service: &Arc<str>, now: Instant) {
        let labels = LaneLabels {
            service: Arc::clone(service),
            route: self.route.clone(),
        };
        if let Some(breaker) = &self.breaker {
            metrics.show_breaker(&labels, breaker, now);
        }
        if let Some(budget) = &self.budget {
            metrics.show_budget(&labels, budget, now);
        }
        if let Some(bulkhead) = &self.bulkhead {
            metrics.show_bulkhead(&labels, bulkhead);
        }
        if let Some(hedge) = &self.hedge {
            metrics.show_hedge(&labels, hedge, now);
        }
    }
}

fn breaker(breaker: &Breaker, now: Instant) -> Value {
    let seen = breaker.snapshot(now);
    let ratio = |share: Share| (share.ratio() * 1000.0).round() / 1000.0;
    json!({
        "state": seen.state.as_str(),
        "failuresInRow": seen.failures,
        "successRatio": seen.succeeded.map(ratio),
        "slowRatio": seen.slow.map(ratio),
        "probes": seen.probes,
        "triesAgainInSeconds": (seen.state == State::Open).then(|| seconds(seen.retry_after)),
        "opened": seen.opened,
    })
}

fn budget(budget: &Budget, now: Instant) -> Value {
    let seen = budget.snapshot(now);
    json!({ "requests": seen.requests, "retries": seen.retries, "allowed": seen.allowed })
}

fn bulkhead(bulkhead: &Bulkhead) -> Value {
    let seen = bulkhead.snapshot();
    json!({
        "running": seen.running,
        "waiting": seen.waiting,
        "maxConcurrent": seen.max_concurrent,
        "maxWaiting": seen.max_waiting,
    })
}

fn hedge(hedge: &Hedge, now: Instant) -> Value {
    let seen = hedge.snapshot(now);
    json!({
        "delayMilliseconds": (seen.delay.as_secs_f64() * 1e6).round() / 1e3,
        "sent": seen.hedged,
        "won": seen.won,
        "refused": seen.refused,
    })
}

/// Whole seconds, as callers are told them: not too early.
fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}
