//! What is believed of a registry's answers about one service: a state machine over answers, failures and time.
//!
//! ```text
//!  answers ──▶ guard ──▶ damping ──▶ at most one list in 100 ms ──▶ watchers
//!              mass withdrawals      endpoints that
//!              are kept              come and go are left out
//! ```
//!
//! - The last good list stays through every failure, marked stale.
//! - A withdrawal is believed at once, unless more than half of a service was withdrawn within the grace, or the last of
//!   it. Then each endpoint stays until a check says that it does not work, or until the registry has stood by it for the
//!   grace and no check says that it works; that others come back does not end it.
//! - An endpoint that comes and goes is left out until it is calm, never more than half of a list.
//! - The list is in order of the ids, whatever order the registry answers in.

mod belief;
mod flaps;
mod guard;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

pub use self::belief::Belief;
pub use self::belief::Damping;
use self::flaps::Flaps;
use self::guard::Guard;
use self::guard::Moment;
use self::guard::Turns;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::endpoint::Staleness;
use crate::endpoint::Standing;
use crate::health::Status;
use crate::report::Exception;
use crate::report::ExceptionReason;

/// What is believed of one service; takes the time as an argument.
#[derive(Clone, Debug)]
pub struct Ledger {
    belief: Belief,
    registry: Answering,
    guard: Guard,
    flaps: Flaps,
    published: Published,
    due: Option<Instant>,
}

/// How the registry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answering {
    NotYet,
    /// Not yet, but there is a list from before.
    Restored,
    Yes,
    NoLonger,
}

#[derive(Clone, Debug)]
struct Published {
    endpoints: Endpoints,
    revision: u64,
    changed_at: Option<Instant>,
    left_out: Vec<Exception>,
    /// Something may have changed since, and its time has not come.
    is_behind: bool,
}

impl Ledger {
    /// Nothing known yet.
    pub fn new(belief: &Belief) -> Self {
        Self {
            belief: belief.clone(),
            registry: Answering::NotYet,
            guard: Guard::default(),
            flaps: Flaps::default(),
            published: Published {
                endpoints: Endpoints::pending(),
                revision: 0,
                changed_at: None,
                left_out: Vec::new(),
                is_behind: false,
            },
            due: None,
        }
    }

    /// Begins with a list from before, stale until the registry answers. Its first answer is then judged like any other.
    pub fn restored(belief: &Belief, endpoints: &Endpoints) -> Self {
        let mut ledger = Self::new(belief);
        if !endpoints.is_empty() {
            ledger.registry = Answering::Restored;
            ledger.guard = Guard::restored(endpoints);
            ledger.published.endpoints =
                Endpoints::from_checked(ledger.guard.view().into(), ledger.standing());
        }
        ledger
    }

    /// The registry gave a list; `evidence` tells what is known of an endpoint from elsewhere.
    pub fn found(
        &mut self,
        now: Instant,
        found: &Endpoints,
        evidence: &dyn Fn(&Endpoint) -> Status,
    ) {
        self.answers(now);
        let moment = Moment {
            now,
            stands: true,
            belief: &self.belief,
            evidence,
        };
        let turns = self.guard.answer(&moment, found.to_vec());
        self.damp(now, &turns);
        self.publish(now);
    }

    /// The registry said that nothing has changed since its last answer.
    pub fn confirmed(&mut self, now: Instant) {
        if self.registry == Answering::NoLonger {
            self.answers(now);
            self.publish(now);
        }
    }

    /// The registry gave no answer that can be used.
    pub fn failed(&mut self, now: Instant) {
        if self.registry == Answering::Yes {
            self.registry = Answering::NoLonger;
            self.publish(now);
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, now: Instant, evidence: &dyn Fn(&Endpoint) -> Status) {
        let moment = Moment {
            now,
            stands: self.registry == Answering::Yes,
            belief: &self.belief,
            evidence,
        };
        let turns = self.guard.pass(&moment);
        let is_calmer = self.damp(now, &turns);
        if self.published.is_behind || is_calmer || !turns.is_empty() {
            self.publish(now);
        } else {
            self.schedule(now);
        }
    }

    /// When [`Self::pass`] has something to do; never where it is none.
    pub fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// What is believed now.
    pub fn endpoints(&self) -> &Endpoints {
        &self.published.endpoints
    }

    /// When that last changed.
    pub fn changed_at(&self) -> Option<Instant> {
        self.published.changed_at
    }

    /// How many endpoints are kept although the registry withdrew them.
    pub fn kept(&self) -> usize {
        self.guard.held()
    }

    /// How many endpoints are left out because they come and go too often.
    pub fn left_out(&self) -> usize {
        self.published.left_out.len()
    }

    /// What is not as the registry says.
    pub fn exceptions(&self) -> Vec<Exception> {
        let kept = self.guard.exceptions().map(|(endpoint, since)| Exception {
            endpoint: Arc::clone(endpoint),
            reason: ExceptionReason::WithdrawalNotBelieved,
            since,
        });
        kept.chain(self.published.left_out.iter().cloned())
            .collect()
    }

    fn answers(&mut self, now: Instant) {
        if self.registry == Answering::NoLonger {
            self.guard.restart(now);
        }
        self.registry = Answering::Yes;
    }

    /// True when an endpoint may be used again.
    fn damp(&mut self, now: Instant, turns: &Turns) -> bool {
        let Some(rules) = self.belief.damping() else {
            return false;
        };
        let is_calmer = self.flaps.pass(now, &rules);
        for (endpoint, turn) in turns {
            self.flaps.turn(now, endpoint, *turn, &rules);
        }
        is_calmer
    }

    fn standing(&self) -> Standing {
        match self.registry {
            Answering::NotYet => Standing::Pending,
            _ if self.guard.view().is_empty() => Standing::Absent,
            Answering::Restored => Standing::Stale(Staleness::Restored),
            Answering::NoLonger => Standing::Stale(Staleness::Unreachable),
            Answering::Yes if self.guard.held() > 0 => Standing::Stale(Staleness::Withdrawn),
            Answering::Yes => Standing::Fresh,
        }
    }

    /// Publishes what is believed, or notes that it is to be done when the time has come.
    fn publish(&mut self, now: Instant) {
        self.published.is_behind = self.quiet_until().is_some_and(|quiet| now < quiet);
        if !self.published.is_behind {
            // Whoever keeps state beside an endpoint finds it by pointer.
            self.guard.reuse(&self.published.endpoints);
            let out = self.flaps.left_out(self.guard.view());
            let next = self.compose(&out);
            let published = &mut self.published;
            published.left_out = exceptions(&out);
            if next != published.endpoints {
                published.revision += 1;
                published.endpoints = next.with_revision(published.revision);
                published.changed_at = Some(now);
            }
        }
        self.schedule(now);
    }

    fn compose(&self, out: &[(&Arc<Endpoint>, Instant)]) -> Endpoints {
        let view = self.guard.view();
        let list = if out.is_empty() {
            view.into()
        } else {
            let out: HashSet<_> = out
                .iter()
                .map(|(endpoint, _)| endpoint.id.as_str())
                .collect();
            let is_in = |endpoint: &&Arc<Endpoint>| !out.contains(endpoint.id.as_str());
            view.iter().filter(is_in).cloned().collect()
        };
        Endpoints::from_checked(list, self.standing())
    }

    fn quiet_until(&self) -> Option<Instant> {
        Some(self.published.changed_at? + self.belief.quiet())
    }

    fn schedule(&mut self, now: Instant) {
        let stands = self.registry == Answering::Yes;
        let guard = self.guard.next_due(now, stands, self.belief.grace());
        let damping = self.belief.damping();
        let flaps = damping.and_then(|rules| self.flaps.next_due(now, &rules));
        let quiet = self.quiet_until().filter(|_| self.published.is_behind);
        self.due = [guard, flaps, quiet].into_iter().flatten().min();
    }
}

fn exceptions(out: &[(&Arc<Endpoint>, Instant)]) -> Vec<Exception> {
    let of = |(endpoint, since): &(&Arc<Endpoint>, Instant)| Exception {
        endpoint: Arc::clone(endpoint),
        reason: ExceptionReason::Flapping,
        since: *since,
    };
    out.iter().map(of).collect()
}

#[cfg(test)]
mod tests;
