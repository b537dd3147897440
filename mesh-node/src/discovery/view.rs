//! What is known of the services that are called, for pages, metrics and health: every endpoint's state with its reason,
//! where it comes from and how fresh that is.

mod look;
pub(crate) mod page;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use mesh_discovery::Condition;
use mesh_discovery::EndpointHealth;
use mesh_discovery::ExceptionReason;
use mesh_discovery::SourceReport;
use mesh_discovery::Standing;
use mesh_discovery::Status;

pub(crate) use self::look::Look;
use crate::stack::endpoints::Slot;
use crate::stack::outbound::Service;
use crate::telemetry::ResilienceMetrics;
use crate::telemetry::Telemetry;

/// What is known of one service at one moment.
#[derive(Debug)]
pub(crate) struct View {
    service: Arc<Service>,
    standing: Standing,
    /// What each source says, in the order in which they are asked.
    reports: Vec<SourceReport>,
    rows: Vec<Row>,
    /// None of the endpoints may be used, so all are.
    is_panic: bool,
    now: Instant,
}

/// One endpoint.
#[derive(Debug)]
struct Row {
    endpoint: Arc<mesh_discovery::Endpoint>,
    /// Nothing where it is left out of the list.
    slot: Option<Slot>,
    state: State,
    reason: Option<Arc<str>>,
    check: Option<EndpointHealth>,
}

/// How an endpoint does, the first that holds of these in the order of [`State::ALL`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum State {
    /// Left out of the list, for it comes and goes too often.
    Flapping,
    /// Calls to it failed, so it gets none for a while.
    Ejected,
    /// Checks of it fail, or the registry says that it does not work.
    Unhealthy,
    /// The registry says that it takes no new calls.
    Draining,
    /// The registry withdrew it together with most others, and is not believed yet: it is used.
    Withdrawn,
    /// None of these.
    Healthy,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Flapping,
        Self::Ejected,
        Self::Unhealthy,
        Self::Draining,
        Self::Withdrawn,
        Self::Healthy,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Flapping => "flapping",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Withdrawn => "withdrawn",
            Self::Healthy => "healthy",
        }
    }

    fn is_working(self) -> bool {
        matches!(self, Self::Healthy | Self::Withdrawn)
    }
}

impl View {
    /// What is known of `service` now, of which its sources say what `reports` says.
    pub(crate) fn new(service: Arc<Service>, reports: Vec<SourceReport>, now: Instant) -> Self {
        let list = service.endpoints.current();
        let checked = service.endpoints.checked();
        let mut checks: BTreeMap<&str, &EndpointHealth> = BTreeMap::new();
        for found in checked.iter().flat_map(|checked| checked.iter()) {
            checks.insert(&found.endpoint.id, found);
        }
        let exceptions = || reports.iter().flat_map(|report| &report.exceptions);
        let kept: BTreeSet<&str> = exceptions()
            .filter(|exception| exception.reason == ExceptionReason::WithdrawalNotBelieved)
            .map(|exception| exception.endpoint.id.as_str())
            .collect();
        let mut rows: Vec<Row> = list
            .all()
            .map(|slot| {
                let id = slot.endpoint.id.as_str();
                let check = checks.get(id).copied();
                Row::new(slot, check, kept.contains(id), now)
            })
            .collect();
        rows.extend(
            exceptions()
                .filter(|exception| exception.reason == ExceptionReason::Flapping)
                .map(|exception| Row {
                    endpoint: Arc::clone(&exception.endpoint),
                    slot: None,
                    state: State::Flapping,
                    reason: Some("it comes and goes too often".into()),
                    check: None,
                }),
        );
        Self {
            service,
            standing: list.found().standing(),
            is_panic: list.is_panic(),
            reports,
            rows,
            now,
        }
    }

    /// Shows it in the metrics.
    pub(crate) fn measure(&self, telemetry: &Telemetry) {
        let (metrics, service) = (&telemetry.discovery, &self.service.name);
        for state in State::ALL {
            metrics.show_state(service, state.as_str(), self.count(state));
        }
        metrics.show_stale(service, matches!(self.standing, Standing::Stale(_)));
        self.measure_resilience(&telemetry.resilience);
        for report in &self.reports {
            if let Some(at) = report.answered_at {
                let age = self.now.saturating_duration_since(at).as_secs();
                metrics.show_age(service, &report.source, age);
            }
        }
    }

    fn measure_resilience(&self, metrics: &ResilienceMetrics) {
        let service = &self.service.name;
        for lane in self.service.seen() {
            lane.measure(metrics, service, self.now);
        }
        for row in &self.rows {
            let member = row.slot.as_ref().map(|slot| &slot.member);
            if let Some(ejection) = member.and_then(|member| member.state().ejection(self.now)) {
                metrics.show_ejected(service, ejection.reason.as_str());
            }
        }
        let levels = self.service.endpoints.current().levels();
        let uses_all = self.is_panic && !self.rows.is_empty();
        let is_ignored = uses_all || levels.iter().any(|level| level.is_panic);
        metrics.show_health_ignored(service, is_ignored);
    }

    fn count(&self, state: State) -> usize {
        self.rows.iter().filter(|row| row.state == state).count()
    }
}

impl Row {
    fn new(slot: &Slot, check: Option<&EndpointHealth>, is_kept: bool, now: Instant) -> Self {
        let member = &slot.member;
        let condition = slot.endpoint.condition;
        let (state, reason) = if member.state().is_ejected(now) {
            let reason = member.last_failure().map(|failure| failure.reason);
            (State::Ejected, reason)
        } else if let Some(check) = check.filter(|check| check.status == Status::Unhealthy) {
            (State::Unhealthy, check.reason.clone())
        } else if condition == Condition::Critical {
            (State::Unhealthy, Some("its registry says critical".into()))
        } else if condition == Condition::Draining {
            (State::Draining, Some("its registry says so".into()))
        } else if is_kept {
            let reason = "withdrawn with most others, which is not believed yet";
            (State::Withdrawn, Some(reason.into()))
        } else {
            let warning = condition == Condition::Warning;
            let reason = warning.then(|| Arc::from("its registry warns of it"));
            (State::Healthy, reason)
        };
        Self {
            endpoint: Arc::clone(&slot.endpoint),
            slot: Some(slot.clone()),
            state,
            reason,
            check: check.cloned(),
        }
    }
}
