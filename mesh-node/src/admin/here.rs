//! What keeps this node and its application alive, as it stands: limits, shedding, and writes that are remembered.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::node::Shared;
use crate::stack::now;

/// The limits of routes that have one, and what routes keep of old answers.
pub(super) fn routes(shared: &Shared) -> Value {
    let routes = &shared.outbound.routes;
    let mut page: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (route, verdict) in routes.limits(now()) {
        let limit = json!({
            "limit": verdict.limit,
            "remaining": verdict.remaining,
            "resetSeconds": verdict.reset_after.as_secs(),
        });
        let of_route = page.entry(route).or_default();
        of_route.insert("rateLimit".to_owned(), limit);
    }
    for (route, kept) in routes.kept() {
        let kept = json!({
            "entries": kept.entries,
            "bytes": kept.bytes,
            "given": kept.given,
            "missed": kept.missed,
        });
        let of_route = page.entry(route).or_default();
        of_route.insert("staleAnswers".to_owned(), kept);
    }
    let page = page.into_iter().map(|(route, mut shown)| {
        shown.insert("route".to_owned(), route.into());
        Value::Object(shown)
    });
    page.collect()
}

/// What is done with the calls of others; `null` where it is not done.
pub(super) fn inbound(shared: &Shared) -> Value {
    let inbound = &shared.gate.inbound;
    let limit = inbound.limit.as_ref().map(|limit| {
        let seen = limit.seen();
        json!({
            "mode": seen.mode,
            "store": seen.is_away.map(|is_away| if is_away { "away" } else { "up" }),
            "callers": seen.callers,
        })
    });
    let shed = inbound.application.shedding.as_ref().map(|shedding| {
        let seen = shedding.snapshot();
        let baseline = seen.baseline.map(|time| time.as_secs_f64() * 1e3);
        json!({
            "limit": seen.limit,
            "inFlight": seen.in_flight,
            "shed": seen.shed,
            "baselineMilliseconds": baseline,
        })
    });
    let writes = inbound.memory.as_ref().map(|memory| {
        let seen = memory.snapshot();
        json!({ "entries": seen.entries, "bytes": seen.bytes, "callers": seen.callers })
    });
    json!({ "rateLimit": limit, "loadShedding": shed, "safeWrites": writes })
}

/// Shows both in the metrics.
pub(super) fn measure(shared: &Shared) {
    let telemetry = &shared.outbound.recorder.telemetry;
    for (route, verdict) in shared.outbound.routes.limits(now()) {
        telemetry.resilience.show_route_limit(route, &verdict);
    }
    let inbound = &shared.gate.inbound;
    let limit = inbound.limit.as_ref();
    if let Some(callers) = limit.and_then(|limit| limit.seen().callers) {
        telemetry.resilience.show_callers(callers);
    }
    if let Some(shedding) = &inbound.application.shedding {
        telemetry.resilience.show_shed(&shedding.snapshot());
    }
    if let Some(memory) = &inbound.memory {
        telemetry.once.show(&memory.snapshot());
    }
}
