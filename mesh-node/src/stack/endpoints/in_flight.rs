//! A call that is under way, and what it says of its endpoint.

use std::sync::Arc;
use std::time::Instant;

use mesh_resilience::balance::Ejection;
use mesh_resilience::balance::InFlight as Load;
use mesh_resilience::balance::Seen;
use mesh_resilience::classify::Outcome;
use mesh_resilience::timeout::Deadline;

use super::list::List;
use super::list::Slot;
use super::member;
use crate::stack::now;

/// A call to one endpoint, under way until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    list: Arc<List>,
    index: usize,
    deadline: Option<Deadline>,
    began: Instant,
    is_recorded: bool,
    /// Says nothing of its endpoint, however it goes.
    is_ignored: bool,
    _load: Load,
}

impl InFlight {
    pub(super) fn new(
        list: &Arc<List>,
        index: usize,
        slot: &Slot,
        (deadline, began): (Option<Deadline>, Instant),
    ) -> Self {
        Self {
            list: Arc::clone(list),
            index,
            deadline,
            began,
            is_recorded: false,
            is_ignored: false,
            _load: slot.member.state.begin(),
        }
    }

    /// Which one of the list it is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Lets nothing that becomes of the call say anything of its endpoint.
    pub(crate) fn ignore(&mut self) {
        (self.is_recorded, self.is_ignored) = (true, true);
    }

    /// Takes in how the call went; too many failures in a row eject the endpoint for a while. `why` is asked of a failure.
    pub(crate) fn record(&mut self, outcome: Outcome, why: impl FnOnce() -> String) {
        self.take_in(outcome, outcome.into(), why);
    }

    /// Takes in that the call failed and that nothing says that the application did.
    pub(crate) fn gateway_failed(&mut self, why: impl FnOnce() -> String) {
        self.take_in(Outcome::Failure, Seen::GatewayFailure, why);
    }

    fn take_in(&mut self, outcome: Outcome, seen: Seen, why: impl FnOnce() -> String) {
        if self.is_ignored {
            return;
        }
        self.is_recorded = true;
        let list = &self.list;
        let Some(slot) = list.slots.get(self.index) else {
            return;
        };
        let now = now();
        let is_failure = outcome == Outcome::Failure;
        if is_failure {
            slot.member.note(&why(), now);
        }
        if outcome != Outcome::Unknown {
            let took = now.saturating_duration_since(self.began);
            list.picker.observe(slot, took, is_failure, now);
        }
        let outliers = &list.common.outliers;
        for (index, ejection) in outliers.record(&list.slots, self.index, seen, now) {
            self.tell(list.slots.get(index), &ejection);
        }
    }

    /// Takes in that nothing, or nothing more, came from the endpoint. One that could not prove to be who it must be is
    /// out at once, however many others are: no further attempt puts that right.
    pub(crate) fn failed(&mut self, error: &mesh_transport::Error) {
        if self.is_ignored || !member::is_identity(error) {
            return self.gateway_failed(|| member::reason(error));
        }
        self.is_recorded = true;
        if let Some(slot) = self.list.slots.get(self.index) {
            let now = now();
            slot.member.note(&member::reason(error), now);
            let outliers = &self.list.common.outliers;
            if let Some(ejection) = outliers.eject_at_once(slot.member.state(), now) {
                self.tell(Some(slot), &ejection);
            }
        }
    }

    fn tell(&self, slot: Option<&Slot>, ejection: &Ejection) {
        let Some(slot) = slot else { return };
        let common = &self.list.common;
        let last = slot.member.last_failure().map(|failure| failure.reason);
        tracing::warn!(
            service = %common.service,
            endpoint = slot.member.destination(),
            ejected = ?ejection.length,
            why = ejection.reason.as_str(),
            recent = ejection.recent,
            reason = last.as_deref(),
            "endpoint ejected after failures"
        );
        let until = now() + ejection.length;
        common.vitals.failing(&common.name, &slot.endpoint, until);
    }
}

impl Drop for InFlight {
    /// An endpoint that takes calls and never answers must not go on drawing them.
    fn drop(&mut self) {
        if !self.is_recorded
            && self
                .deadline
                .is_some_and(|deadline| deadline.is_past(now()))
        {
            self.gateway_failed(|| "no answer before the deadline".to_owned());
        }
    }
}
