//! What the answers of one endpoint's probes say of it.

use crate::health::HealthConfig;

/// What active checks say of an endpoint.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not probed often enough to say; used like a healthy one.
    Unknown,
    /// It answers.
    Healthy,
    /// It failed as often in a row as the threshold says, and has not risen again.
    Unhealthy,
}

impl Status {
    /// True when requests may go there.
    pub fn is_usable(self) -> bool {
        self != Self::Unhealthy
    }
}

/// The rise and fall of one endpoint, as a state machine over its probes' outcomes.
///
/// ```text
///              success                    `fall` failures in a row
///   Unknown ─────────────▶ Healthy ──────────────────────────────────▶ Unhealthy
///      │                      ▲          `rise` successes in a row         │ ▲
///      │                      └────────────────────────────────────────────┘ │
///      └──────────────────────── `fall` failures in a row ───────────────────┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    status: Status,
    /// Outcomes in a row that speak against the present status.
    against: u32,
}

impl Check {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self {
            status: Status::Unknown,
            against: 0,
        }
    }

    /// Takes the outcome of a probe in; gives the status if it changed.
    pub fn record(&mut self, config: &HealthConfig, is_success: bool) -> Option<Status> {
        let next = if is_success {
            Status::Healthy
        } else {
            Status::Unhealthy
        };
        let needed = match (self.status, next) {
            (Status::Unknown, Status::Healthy) => 1,
            (_, Status::Healthy) => config.rise.get(),
            _ => config.fall.get(),
        };
        if self.status == next {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.status = next;
        Some(next)
    }

    /// What is known now.
    pub fn status(&self) -> Status {
        self.status
    }
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}
