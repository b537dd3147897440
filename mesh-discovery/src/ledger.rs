//! What is believed of a registry's answers about one service: a state machine over answers, failures and time.
//!
//! - The last good list stays through every failure, marked stale.

use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::Staleness;
use crate::endpoint::Standing;
use crate::health::Status;
use crate::report::Exception;

/// What is believed of a registry's answers.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Belief {}

/// What is believed of one service; takes the time as an argument.
#[derive(Clone, Debug)]
pub struct Ledger {
    endpoints: Endpoints,
    revision: u64,
    changed_at: Option<Instant>,
}

impl Ledger {
    /// Nothing known yet.
    pub fn new(_belief: &Belief) -> Self {
        Self {
            endpoints: Endpoints::pending(),
            revision: 0,
            changed_at: None,
        }
    }

    /// The registry gave a list; `evidence` tells what is known of an endpoint from elsewhere.
    pub fn found(
        &mut self,
        now: Instant,
        found: Endpoints,
        _evidence: &dyn Fn(&Endpoint) -> Status,
    ) {
        let next = if found.is_empty() {
            if self.endpoints.is_known() {
                let stale = Standing::Stale(Staleness::Withdrawn);
                self.endpoints.clone().with_standing(stale, 0)
            } else {
                Endpoints::absent()
            }
        } else {
            found.reusing(&self.endpoints)
        };
        self.replace(now, next);
    }

    /// The registry said that nothing has changed since its last answer.
    pub fn confirmed(&mut self, now: Instant) {
        if self.endpoints.standing() == Standing::Stale(Staleness::Unreachable) {
            let next = self.endpoints.clone().with_standing(Standing::Fresh, 0);
            self.replace(now, next);
        }
    }

    /// The registry gave no answer that can be used.
    pub fn failed(&mut self, now: Instant) {
        if self.endpoints.standing() == Standing::Fresh {
            let stale = Standing::Stale(Staleness::Unreachable);
            let next = self.endpoints.clone().with_standing(stale, 0);
            self.replace(now, next);
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, _now: Instant, _evidence: &dyn Fn(&Endpoint) -> Status) {}

    /// When [`Self::pass`] has something to do; never where it is none.
    pub fn next_due(&self) -> Option<Instant> {
        None
    }

    /// What is believed now.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// When that last changed.
    pub fn changed_at(&self) -> Option<Instant> {
        self.changed_at
    }

    /// What is not as the registry says.
    pub fn exceptions(&self) -> Vec<Exception> {
        Vec::new()
    }

    fn replace(&mut self, now: Instant, next: Endpoints) {
        if next != self.endpoints {
            self.revision += 1;
            self.endpoints = next.with_revision(self.revision);
            self.changed_at = Some(now);
        }
    }
}
