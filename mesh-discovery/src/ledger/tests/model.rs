//! The rules of the ledger once more, as plainly as they can be written: nothing is fast, nothing is shared.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use crate::Condition;
use crate::Status;

/// What a registry says of an endpoint: its condition and its weight.
pub(super) type Said = (Condition, u16);

#[derive(Debug, Default)]
pub(super) struct Model {
    answers: Option<bool>,
    endpoints: BTreeMap<String, One>,
    changed_at: Option<Instant>,
    is_behind: bool,
    pub(super) published: Vec<(String, Said)>,
}

/// All that is known of one id.
#[derive(Debug, Default)]
struct One {
    said: Option<Said>,
    believed: Option<Said>,
    held: Option<(Instant, Instant)>,
    departed: Option<Instant>,
    penalty: f64,
    penalty_at: Option<Instant>,
    suppressed: Option<Instant>,
}

fn is_good(said: Option<Said>) -> bool {
    said.is_some_and(|(condition, _)| condition.is_usable())
}

impl Model {
    pub(super) fn found(
        &mut self,
        now: Instant,
        answer: &BTreeMap<String, Said>,
        evidence: &dyn Fn(&str) -> Status,
    ) {
        self.answers(now);
        for id in answer.keys() {
            self.endpoints.entry(id.clone()).or_default();
        }
        for one in self.endpoints.values_mut() {
            one.decay(now);
        }
        for (id, one) in &mut self.endpoints {
            one.said = answer.get(id).copied();
            if is_good(one.said) || !is_good(one.believed) {
                one.believe(now, None);
            }
        }
        self.judge(now, evidence);
        self.publish(now);
    }

    pub(super) fn pass(&mut self, now: Instant, evidence: &dyn Fn(&str) -> Status) {
        let mut is_calmer = false;
        for one in self.endpoints.values_mut() {
            is_calmer |= one.decay(now);
        }
        let is_changed = self.judge(now, evidence);
        if self.is_behind || is_calmer || is_changed {
            self.publish(now);
        }
    }

    pub(super) fn confirmed(&mut self, now: Instant) {
        if self.answers == Some(false) {
            self.answers(now);
            self.publish(now);
        }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        if self.answers == Some(true) {
            self.answers = Some(false);
            self.publish(now);
        }
    }

    fn answers(&mut self, now: Instant) {
        if self.answers == Some(false) {
            for one in self.endpoints.values_mut() {
                one.held = one.held.map(|(since, _)| (since, now));
            }
        }
        self.answers = Some(true);
    }

    fn judge(&mut self, now: Instant, evidence: &dyn Fn(&str) -> Status) -> bool {
        let count =
            |test: &dyn Fn(&One) -> bool| self.endpoints.values().filter(|one| test(one)).count();
        let good = count(&|one| is_good(one.said));
        let gone = count(&|one| {
            is_good(one.believed) && !is_good(one.said)
                || one.departed.is_some_and(|at| now < at + GRACE)
        });
        let is_guarded = good == 0 || gone * 2 > good + gone;
        let mut is_changed = false;
        for (id, one) in &mut self.endpoints {
            if is_good(one.said) || !is_good(one.believed) {
                continue;
            }
            let stays = one.held.is_some() && one.said.is_none();
            let (since, stands) = *one.held.get_or_insert((now, now));
            let is_wish = one
                .said
                .is_some_and(|(said, _)| said == Condition::Draining);
            let is_believed = match evidence(id) {
                Status::Unhealthy => true,
                Status::Healthy if !is_wish => false,
                Status::Healthy | Status::Unknown => {
                    self.answers == Some(true) && now >= stands + GRACE
                }
            };
            if !(is_guarded || stays) || is_believed {
                is_changed = true;
                one.believe(now, Some(since));
            }
        }
        is_changed
    }

    fn publish(&mut self, now: Instant) {
        self.is_behind = self.changed_at.is_some_and(|at| now < at + QUIET);
        if self.is_behind {
            return;
        }
        let believed = || {
            self.endpoints
                .iter()
                .filter(|(_, one)| one.believed.is_some())
        };
        let good = believed().filter(|(_, one)| is_good(one.believed)).count();
        let mut out: Vec<_> = believed()
            .filter_map(|(id, one)| Some((one.suppressed?, id, is_good(one.believed))))
            .collect();
        out.sort();
        let mut room = good / 2;
        let mut left_out = Vec::new();
        for (_, id, is_good) in out {
            if !is_good || room > 0 {
                left_out.push(id);
                room -= usize::from(is_good);
            }
        }
        left_out.truncate(believed().count() / 2);
        let list = believed()
            .filter(|(id, _)| !left_out.contains(id))
            .filter_map(|(id, one)| Some((id.clone(), one.believed?)))
            .collect();
        let before = std::mem::replace(&mut self.published, list);
        self.has_changed(now, before != self.published);
    }

    fn has_changed(&mut self, now: Instant, is_changed: bool) {
        if is_changed {
            self.changed_at = Some(now);
        }
    }

    /// The standing is part of a list; the caller, who sees it, tells that it changed.
    pub(super) fn standing_changed(&mut self, now: Instant) {
        self.changed_at = Some(now);
    }
}

impl One {
    /// What is said is believed.
    fn believe(&mut self, now: Instant, withdrawn: Option<Instant>) {
        let (was_known, was_good) = (self.believed.is_some(), is_good(self.believed));
        self.believed = self.said;
        self.held = None;
        if let Some(since) = withdrawn {
            self.departed = Some(since);
        }
        if is_good(self.said) {
            self.departed = None;
        }
        let is_new = !was_known && self.penalty == 0.0;
        if was_good != is_good(self.said) && !is_new {
            self.penalty = (self.penalty + 1.0).min(16.0);
            self.penalty_at = Some(now);
            if self.penalty >= 6.0 {
                self.suppressed.get_or_insert(now);
            }
        }
    }

    fn decay(&mut self, now: Instant) -> bool {
        let Some(at) = self.penalty_at else {
            return false;
        };
        self.penalty *= 0.5_f64.powf((now - at).as_secs_f64() / 15.0);
        self.penalty_at = Some(now);
        let is_calm = self.penalty <= 2.0 && self.suppressed.take().is_some();
        if self.penalty <= 0.5 && self.suppressed.is_none() {
            (self.penalty, self.penalty_at) = (0.0, None);
        }
        is_calm
    }
}

const GRACE: Duration = Duration::from_mins(1);
const QUIET: Duration = Duration::from_millis(100);
