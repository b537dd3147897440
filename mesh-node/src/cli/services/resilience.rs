//! The lines of `mesh-node services` about what keeps calls alive.

use serde_json::Value;

use super::age;
use super::list;
use super::shown;

/// What the layers on the ways to a service do: a paragraph for the service's own, one for each route that has its own.
pub(super) fn lanes(service: &Value) -> String {
    let mut text: String = list(&service["lanes"]).iter().map(lane).collect();
    let left_out = service["lanesLeftOut"].as_u64();
    let left_out = left_out.filter(|count| *count > 0);
    text.extend(left_out.map(|count| format!("  and {count} routes more\n")));
    text.extend(
        list(&service["balancing"]["priorities"])
            .iter()
            .enumerate()
            .filter_map(level),
    );
    text
}

/// The circuits of routes that are not closed.
pub(super) fn open_routes(service: &Value) -> String {
    let lanes = list(&service["lanes"]).iter();
    let open = lanes.filter_map(|lane| {
        let route = lane["route"].as_str()?;
        let state = lane["circuitBreaker"]["state"].as_str()?;
        let name = shown(&service["service"]);
        (state != "CLOSED").then(|| format!("\n{name}, route {route}: circuit {state}"))
    });
    open.collect()
}

/// What this node does with the calls of others, and which limits its routes have.
pub(super) fn here(page: &Value) -> String {
    let inbound = &page["inbound"];
    let mut lines = Vec::new();
    let limit = &inbound["rateLimit"];
    if let Some(mode) = limit["mode"].as_str() {
        let store = limit["store"].as_str();
        let store = store.map(|store| format!(", which is {store}"));
        let callers = limit["callers"].as_u64();
        let callers = callers.map(|callers| format!(": {callers} callers counted here"));
        lines.push(format!(
            "rate limit by {mode}{}{}",
            store.unwrap_or_default(),
            callers.unwrap_or_default(),
        ));
    }
    let shed = &inbound["loadShedding"];
    if shed.is_object() {
        lines.push(format!(
            "application: {} of {} calls under way, {} refused",
            shown(&shed["inFlight"]),
            shown(&shed["limit"]),
            shown(&shed["shed"]),
        ));
    }
    let writes = &inbound["safeWrites"];
    if writes.is_object() {
        lines.push(format!(
            "writes: {} remembered of {} callers, {} bytes of answers",
            shown(&writes["entries"]),
            shown(&writes["callers"]),
            shown(&writes["bytes"]),
        ));
    }
    let limited = list(&page["routes"])
        .iter()
        .filter(|route| route["rateLimit"].is_object());
    lines.extend(limited.map(|route| {
        format!(
            "route {}: {} of {} calls left in the window",
            shown(&route["route"]),
            shown(&route["rateLimit"]["remaining"]),
            shown(&route["rateLimit"]["limit"]),
        )
    }));
    let keeping = list(&page["routes"])
        .iter()
        .filter(|route| route["staleAnswers"].is_object());
    lines.extend(keeping.map(|route| {
        format!(
            "route {}: {} old answers kept, {} bytes; {} given",
            shown(&route["route"]),
            shown(&route["staleAnswers"]["entries"]),
            shown(&route["staleAnswers"]["bytes"]),
            shown(&route["staleAnswers"]["given"]),
        )
    }));
    let mut text = String::new();
    for line in lines {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

fn lane(lane: &Value) -> String {
    let mut parts = Vec::new();
    let breaker = &lane["circuitBreaker"];
    if breaker.is_object() {
        parts.push(circuit(breaker));
    }
    let budget = &lane["retryBudget"];
    if budget.is_object() {
        parts.push(format!(
            "retries {} of {} allowed for {} calls",
            shown(&budget["retries"]),
            shown(&budget["allowed"]),
            shown(&budget["requests"]),
        ));
    }
    let bulkhead = &lane["bulkhead"];
    if bulkhead.is_object() {
        parts.push(format!(
            "bulkhead {} of {} running, {} of {} waiting",
            shown(&bulkhead["running"]),
            shown(&bulkhead["maxConcurrent"]),
            shown(&bulkhead["waiting"]),
            shown(&bulkhead["maxWaiting"]),
        ));
    }
    let hedge = &lane["hedge"];
    if hedge.is_object() {
        parts.push(format!(
            "hedges after {} ms: {} sent, {} won, {} refused",
            shown(&hedge["delayMilliseconds"]),
            shown(&hedge["sent"]),
            shown(&hedge["won"]),
            shown(&hedge["refused"]),
        ));
    }
    if parts.is_empty() {
        return String::new();
    }
    let route = lane["route"].as_str();
    let route = route.map(|route| format!("route {route}: "));
    format!("  {}{}\n", route.unwrap_or_default(), parts.join("; "))
}

fn circuit(breaker: &Value) -> String {
    let state = shown(&breaker["state"]);
    let again = &breaker["triesAgainInSeconds"];
    let more = if again.is_u64() {
        format!(", tries again in {}", age(again))
    } else {
        format!(", {} failures in a row", shown(&breaker["failuresInRow"]))
    };
    format!(
        "circuit {state}{more}, opened {} times",
        shown(&breaker["opened"])
    )
}

/// Said only where it is not as usual.
fn level((priority, level): (usize, &Value)) -> Option<String> {
    let healthy = format!(
        "{} of {} healthy",
        shown(&level["healthy"]),
        shown(&level["endpoints"])
    );
    if level["ignoresHealth"] == true {
        return Some(format!(
            "  priority {priority}: {healthy}, so health is ignored\n"
        ));
    }
    let in_zone = level["shareInZone"].as_f64()?;
    let percent = (in_zone * 100.0).round();
    Some(format!(
        "  priority {priority}: {healthy}; {percent} % of its calls stay in the zone\n"
    ))
}

/// Why an endpoint is as it is, with when it comes back where it is ejected.
pub(super) fn reason(endpoint: &Value) -> String {
    let reason = shown(&endpoint["reason"]);
    match endpoint["ejection"]["why"].as_str() {
        None => reason,
        Some(why) => {
            let back = age(&endpoint["ejectedForSeconds"]);
            format!("{reason} ({why}, back in {back})")
        }
    }
}

/// The weight, and what part of it holds while it starts slowly.
pub(super) fn weight(endpoint: &Value) -> String {
    let weight = shown(&endpoint["weight"]);
    match endpoint["weightFactor"].as_f64() {
        Some(factor) if factor < 1.0 => format!("{weight} x {factor}"),
        _ => weight,
    }
}
