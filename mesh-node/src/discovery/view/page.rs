//! The pages about services, as JSON.

use std::time::Instant;

use mesh_discovery::Exception;
use mesh_discovery::ExceptionReason;
use mesh_discovery::SourceReport;
use mesh_discovery::Standing;
use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::LevelSnapshot;
use serde_json::Value;
use serde_json::json;

use super::Row;
use super::State;
use super::View;
use crate::discovery::control_planes::ControlPlanes;

/// One line of `/health/services`.
pub(crate) fn summary(view: &View) -> Value {
    let working = view
        .rows
        .iter()
        .filter(|row| row.state.is_working())
        .count();
    let used = view.reports.iter().filter(|report| report.is_used);
    let failure = view.reports.iter().find_map(|report| {
        let failure = report.failure.as_ref()?;
        Some(format!("{}: {failure}", report.source))
    });
    let answered = used.filter_map(|report| report.answered_at).max();
    json!({
        "service": &*view.service.name,
        "status": if working > 0 { "healthy" } else { "unhealthy" },
        "endpoints": view.rows.iter().filter(|row| row.slot.is_some()).count(),
        "healthyEndpoints": working,
        "states": states(view),
        "standing": view.standing.to_string(),
        "isStale": matches!(view.standing, Standing::Stale(_)),
        "reason": failure,
        "sources": view.reports.iter().map(|report| why(report, view.now)).collect::<Vec<_>>(),
        "answeredSecondsAgo": answered.map(|at| ago(view.now, at)),
        "circuitBreaker": view.service.lane.breaker.state(view.now).as_str(),
    })
}

/// All of it, with at most `most` endpoints and lanes.
pub(crate) fn whole(view: &View, control_planes: &ControlPlanes, most: usize) -> Value {
    let mut page = summary(view);
    let rows = view.rows.iter().take(most);
    let balance = &view.service.endpoints.balancing().config;
    let lanes = view.service.seen();
    let lanes = lanes.take(most).map(|lane| lane.page(view.now));
    let more = json!({
        "lanes": lanes.collect::<Vec<_>>(),
        "lanesLeftOut": view.service.seen().count().saturating_sub(most),
        "usesAll": view.is_panic,
        "balancing": balancing(view),
        "drops": control_planes.shares(&view.service.endpoints),
        "endpointList": rows.map(|row| row_of(row, view.now, balance)).collect::<Vec<_>>(),
        "endpointsLeftOut": view.rows.len().saturating_sub(most),
    });
    if let (Some(page), Value::Object(more)) = (page.as_object_mut(), more) {
        page.extend(more);
    }
    page
}

/// How calls are shared between endpoints: the policy, and what follows from health and zones.
fn balancing(view: &View) -> Value {
    let endpoints = &view.service.endpoints;
    let config = &endpoints.balancing().config;
    let level = |level: LevelSnapshot| {
        json!({
            "endpoints": level.endpoints,
            "healthy": level.healthy,
            "share": thousandths(level.share),
            "shareInZone": level.in_zone.map(thousandths),
            "ignoresHealth": level.is_panic,
        })
    };
    let levels = endpoints.current().levels();
    json!({
        "policy": config.policy.as_str(),
        "zone": config.zone_aware.as_ref().map(|zone| &*zone.zone),
        "priorities": levels.into_iter().map(level).collect::<Vec<_>>(),
    })
}

/// How many endpoints are in each state, where any are.
fn states(view: &View) -> Value {
    let count = |state: State| (state, view.count(state));
    State::ALL
        .into_iter()
        .map(count)
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| (state.as_str().to_owned(), Value::from(count)))
        .collect()
}

fn row_of(row: &Row, now: Instant, balance: &BalanceConfig) -> Value {
    let endpoint = &row.endpoint;
    let member = row.slot.as_ref().map(|slot| &slot.member);
    let state = member.map(|member| member.state());
    let failure = member.and_then(|member| member.last_failure());
    let ejection = state.and_then(|state| state.ejection(now));
    let latency = state.and_then(|state| state.latency(balance.latency_decay, now));
    let slow_start = balance.slow_start.as_ref();
    let factor = slow_start.and_then(|slow| Some(slow.factor(state?.age(now))));
    let expected = endpoint.spiffe_id.as_deref();
    let expected = expected.or_else(|| member.map(|member| member.expected().as_str()));
    let check = row.check.as_ref();
    json!({
        "id": endpoint.id,
        "address": endpoint.to_string(),
        "state": row.state.as_str(),
        "reason": row.reason.as_deref(),
        // Only the configuration leaves it out.
        "source": endpoint.source.as_deref().unwrap_or("static"),
        "ageSeconds": member.map(|member| ago(now, member.since)),
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "zone": endpoint.zone,
        "version": endpoint.version,
        "tags": endpoint.tags,
        "metadata": endpoint.metadata,
        "spiffeId": expected,
        "publicKeyFingerprint": endpoint.public_key_fingerprint,
        "condition": endpoint.condition.to_string(),
        "inFlight": state.map(mesh_resilience::balance::EndpointState::in_flight),
        "openConnections": member.map(|member| member.open_connections()),
        "failureRatio": state.map(|state| thousandths(state.failure_ratio(now))),
        "latencyMilliseconds": latency.map(|latency| thousandths(latency.as_secs_f64() * 1000.0)),
        "weightFactor": factor.map(thousandths),
        "ejectedForSeconds": ejection.map(|ejection| ejection.length.as_secs()),
        "ejection": ejection.map(|ejection| json!({
            "why": ejection.reason.as_str(), "recent": ejection.recent,
        })),
        "lastFailure": failure.map(|failure| json!({
            "reason": &*failure.reason, "secondsAgo": ago(now, failure.at),
        })),
        "check": check.map(|check| json!({
            "status": status(check.status),
            "reason": check.reason.as_deref(),
            "sinceSeconds": check.since.map(|since| ago(now, since)),
            "lastSecondsAgo": check.last_probe.map(|at| ago(now, at)),
        })),
    })
}

fn why(report: &SourceReport, now: Instant) -> Value {
    let exceptions = report.exceptions.iter().take(MOST_EXCEPTIONS);
    json!({
        "source": &*report.source,
        "standing": report.standing.to_string(),
        "endpoints": report.endpoints,
        "isUsed": report.is_used,
        "answeredSecondsAgo": report.answered_at.map(|at| ago(now, at)),
        "changedSecondsAgo": report.changed_at.map(|at| ago(now, at)),
        "failure": report.failure.as_deref(),
        "exceptions": exceptions.map(|exception| this(exception, now)).collect::<Vec<_>>(),
        "exceptionsLeftOut": report.exceptions.len().saturating_sub(MOST_EXCEPTIONS),
    })
}

fn this(exception: &Exception, now: Instant) -> Value {
    let reason = match exception.reason {
        ExceptionReason::WithdrawalNotBelieved => "withdrawal not believed",
        ExceptionReason::Flapping => "flapping",
        _ => "other",
    };
    json!({
        "endpoint": exception.endpoint.id,
        "reason": reason,
        "sinceSeconds": ago(now, exception.since),
    })
}

fn status(status: mesh_discovery::Status) -> &'static str {
    match status {
        mesh_discovery::Status::Healthy => "healthy",
        mesh_discovery::Status::Unhealthy => "unhealthy",
        _ => "unknown",
    }
}

fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Whole seconds.
fn ago(now: Instant, at: Instant) -> u64 {
    now.saturating_duration_since(at).as_secs()
}

/// A page is for people; the metrics count them all.
const MOST_EXCEPTIONS: usize = 100;
