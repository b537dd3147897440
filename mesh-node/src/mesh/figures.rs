//! The figures of a node as types: what the admin pages `/stats` and `/health` tell.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_resilience::breaker::State;

use crate::node::Shared;
use crate::stack::now;

/// The figures of the admin page `/stats`, since the start of the node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The name of this service.
    pub service: String,
    /// How long it has been running.
    pub uptime: Duration,
    /// Requests that ended, in both directions.
    pub total_requests: u64,
    /// Those that did not fail. An answer that blames the caller (4xx) is no failure.
    pub successful_requests: u64,
    /// Those that failed.
    pub failed_requests: u64,
    /// From the request to the end of its answer, on average. Zero before the first request.
    pub average_latency: Duration,
    /// Connections that are open, to this node and to the outbound listeners.
    pub active_connections: u64,
    /// Secure sessions in which other nodes may call.
    pub active_sessions: usize,
    /// The audit log, where there is one.
    pub audit: Option<AuditStats>,
}

/// How the audit log does.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AuditStats {
    /// Records on stable storage.
    pub appended: u64,
    /// Records that wait to be written.
    pub queued: usize,
    /// Writes that failed.
    pub failures: u64,
    /// The position and hash of the last record.
    pub head: String,
}

/// Whether a node does its work.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Health {
    /// In one word.
    pub status: HealthStatus,
    /// The services that it can call, by name.
    pub services: Vec<ServiceHealth>,
}

/// Whether a node does its work, in one word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HealthStatus {
    /// It does.
    Ok,
    /// It does, with what it had: a policy, key or the like that should have replaced it was refused.
    Degraded,
    /// It is starting or stopping.
    NotReady,
    /// It can't write its audit log, so it lets nothing pass.
    AuditFailed,
}

/// How a service does, as seen from here.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServiceHealth {
    /// Its name.
    pub service: String,
    /// Endpoints that discovery gives.
    pub endpoints: usize,
    /// Those of them that are not ejected.
    pub healthy_endpoints: usize,
    /// What its circuit breaker does with a call.
    pub circuit_breaker: State,
}

impl Health {
    /// Whether the status is [`HealthStatus::Ok`].
    pub fn is_ok(&self) -> bool {
        self.status == HealthStatus::Ok
    }

    /// The health of `service`, where it is known.
    pub fn of(&self, service: &str) -> Option<&ServiceHealth> {
        self.services.iter().find(|one| one.service == service)
    }
}

pub(super) fn stats(shared: &Arc<Shared>, service: &str, uptime: Duration) -> Stats {
    let telemetry = &shared.outbound.recorder.telemetry;
    let totals = &telemetry.totals;
    let [total, failed, micros] = [&totals.requests, &totals.failed, &totals.micros]
        .map(|counter| counter.load(Ordering::Relaxed));
    let audit = shared.auditor.as_ref().map(|auditor| {
        let stats = auditor.log().stats();
        AuditStats {
            appended: stats.appended,
            queued: stats.queued,
            failures: stats.failures,
            head: auditor.log().head().to_string(),
        }
    });
    Stats {
        service: service.to_owned(),
        uptime,
        total_requests: total,
        successful_requests: total.saturating_sub(failed),
        failed_requests: failed,
        average_latency: Duration::from_micros(micros.checked_div(total).unwrap_or(0)),
        active_connections: u64::try_from(telemetry.open_connections()).unwrap_or(0),
        active_sessions: shared
            .gate
            .session_stats()
            .map_or(0, |sessions| sessions.sessions),
        audit,
    }
}

pub(super) fn health(shared: &Arc<Shared>) -> Health {
    let is_recorded = shared
        .auditor
        .as_ref()
        .is_none_or(|auditor| !auditor.log().stats().is_failed);
    let is_ready = shared.is_ready.load(Ordering::Acquire) && shared.is_settled();
    let status = match (is_ready, is_recorded) {
        (true, true) if shared.health.is_degraded() => HealthStatus::Degraded,
        (true, true) => HealthStatus::Ok,
        (true, false) => HealthStatus::AuditFailed,
        (false, _) => HealthStatus::NotReady,
    };
    let services = shared.outbound.services.all();
    let services = services
        .iter()
        .map(|service| {
            let list = service.endpoints.current();
            ServiceHealth {
                service: service.name.to_string(),
                endpoints: list.len(),
                healthy_endpoints: list.healthy(),
                circuit_breaker: service.lane.breaker.state(now()),
            }
        })
        .collect();
    Health { status, services }
}
