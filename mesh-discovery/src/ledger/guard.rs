//! Withdrawals that are hard to believe.
//!
//! What a registry takes away is gone at once, unless it takes away most of a service or the last of it: then it is more
//! likely that something is wrong with the registry. The endpoints stay until somebody else says so too, or until the
//! registry has stood by it for a while. Turning from good to critical or draining is a withdrawal like any other, but that
//! a draining endpoint works says nothing against it.
//!
//! A registry that lost its data is told anew, by one endpoint after the other and for as long as the slowest takes to its
//! next sign of life. So one that is missing and kept stays kept, however many of those beside it come back.
//!
//! # Sources
//!
//! The share is counted as Envoy's panic threshold counts hosts ("Panic threshold", load balancing), but over
//! withdrawals, which it does not look at. Keeping what a registry loses is "self preservation" in Netflix's Eureka.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::endpoint::Condition;
use crate::endpoint::Endpoint;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::health::Status;
use crate::ledger::Belief;

/// What a judgement is made from.
pub(super) struct Moment<'a> {
    pub(super) now: Instant,
    /// True while the registry can be asked.
    pub(super) stands: bool,
    pub(super) belief: &'a Belief,
    /// What is known of endpoints from elsewhere.
    pub(super) evidence: &'a dyn Fn(&Endpoint) -> Status,
}

/// The registry's answers after withdrawals that are not believed were undone.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// What is believed, in order of the ids.
    view: Vec<Arc<Endpoint>>,
    /// Of the view, those that the registry no longer gives as good.
    held: HashMap<String, Held>,
    /// Withdrawals that were believed, for as long as they count, and when they were made.
    departed: HashMap<String, Instant>,
}

#[derive(Clone, Debug)]
struct Held {
    /// What the registry says instead, if anything.
    said: Option<Arc<Endpoint>>,
    since: Instant,
    /// Since when the registry stands by it without a break.
    stands_since: Instant,
}

/// An endpoint that was good and that the registry no longer gives as good.
struct Withdrawal {
    kept: Arc<Endpoint>,
    said: Option<Arc<Endpoint>>,
}

/// A change in what is believed of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It was not there.
    New,
    /// It was there and not good.
    Came,
    /// It was good.
    Went,
}

pub(super) type Turns = Vec<(Arc<Endpoint>, Turn)>;

impl Guard {
    /// Begins with a list from before.
    pub(super) fn restored(list: &[Arc<Endpoint>]) -> Self {
        let mut view = list.to_vec();
        view.sort_by(|a, b| a.id.cmp(&b.id));
        Self {
            view,
            ..Self::default()
        }
    }

    /// Takes an answer; gives what has changed in what is believed.
    pub(super) fn answer(&mut self, moment: &Moment<'_>, mut answer: Vec<Arc<Endpoint>>) -> Turns {
        // Stable sorting takes linear time for what is sorted, and registries sort.
        answer.sort_by(|a, b| a.id.cmp(&b.id));
        let mut before = std::mem::take(&mut self.view).into_iter().peekable();
        let mut withdrawn = Vec::new();
        let mut turns = Vec::new();
        let mut lose = |kept: Arc<Endpoint>, said| {
            if kept.condition.is_usable() {
                withdrawn.push(Withdrawal { kept, said });
            }
        };
        self.view.reserve(answer.len());
        for new in answer {
            while let Some(lost) = before.next_if(|old| old.id < new.id) {
                lose(lost, None);
            }
            let old = before.next_if(|old| old.id == new.id);
            let was_good = old.as_ref().is_some_and(|old| old.condition.is_usable());
            match (old, new.condition.is_usable()) {
                (Some(old), false) if was_good => {
                    lose(old, Some(new));
                }
                (Some(old), is_good) => {
                    if is_good && !was_good {
                        turns.push((Arc::clone(&new), Turn::Came));
                    }
                    // Whoever keeps state beside an endpoint finds it by pointer.
                    self.view.push(if *old == *new { old } else { new });
                }
                (None, is_good) => {
                    if is_good {
                        turns.push((Arc::clone(&new), Turn::New));
                    }
                    self.view.push(new);
                }
            }
        }
        for lost in before {
            lose(lost, None);
        }
        self.forget_returned();
        self.settle(moment, withdrawn, &mut turns);
        turns
    }

    /// Lets time pass for what is held.
    pub(super) fn pass(&mut self, moment: &Moment<'_>) -> Turns {
        let mut turns = Vec::new();
        if self.held.is_empty() {
            self.forget_departed(moment);
            return turns;
        }
        let mut withdrawn = Vec::with_capacity(self.held.len());
        let held = &self.held;
        self.view.retain(|endpoint| match held.get(&endpoint.id) {
            Some(held) => {
                withdrawn.push(Withdrawal {
                    kept: Arc::clone(endpoint),
                    said: held.said.clone(),
                });
                false
            }
            None => true,
        });
        self.settle(moment, withdrawn, &mut turns);
        turns
    }

    /// The registry answers again: what it withdrew has to stand anew.
    pub(super) fn restart(&mut self, now: Instant) {
        for held in self.held.values_mut() {
            held.stands_since = now;
        }
    }

    /// Takes the pointer from `before`, which is in order of the ids, wherever an endpoint is as it was there.
    pub(super) fn reuse(&mut self, before: &[Arc<Endpoint>]) {
        let mut before = before.iter().peekable();
        for endpoint in &mut self.view {
            while before.next_if(|old| old.id < endpoint.id).is_some() {}
            if let Some(old) = before.next_if(|old| old.id == endpoint.id)
                && old == endpoint
            {
                *endpoint = Arc::clone(old);
            }
        }
    }

    /// What is believed, in order of the ids.
    pub(super) fn view(&self) -> &[Arc<Endpoint>] {
        &self.view
    }

    /// How many endpoints are kept although they were withdrawn.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Those that are kept although they were withdrawn, and since when.
    pub(super) fn exceptions(&self) -> impl Iterator<Item = (&Arc<Endpoint>, Instant)> {
        self.view
            .iter()
            .filter_map(|endpoint| Some((endpoint, self.held.get(&endpoint.id)?.since)))
    }

    /// When [`Self::pass`] has something to do.
    pub(super) fn next_due(&self, now: Instant, stands: bool, grace: Duration) -> Option<Instant> {
        if self.held.is_empty() {
            return self.departed.values().max().map(|since| *since + grace);
        }
        let look = now + LOOK;
        let over = self.held.values().map(|held| held.stands_since + grace);
        let over = over.filter(|over| stands && *over > now).min();
        Some(over.map_or(look, |over| over.min(look)))
    }

    /// Endpoints that are good in an answer are neither held nor gone.
    fn forget_returned(&mut self) {
        if self.held.is_empty() && self.departed.is_empty() {
            return;
        }
        for endpoint in &self.view {
            if endpoint.condition.is_usable() {
                self.held.remove(&endpoint.id);
                self.departed.remove(&endpoint.id);
            }
        }
    }

    fn forget_departed(&mut self, moment: &Moment<'_>) {
        let grace = moment.belief.grace();
        self.departed.retain(|_, since| moment.now < *since + grace);
    }

    /// Puts into the view what is to be said of the endpoints in `withdrawn`, which are those that are not in it now.
    fn settle(&mut self, moment: &Moment<'_>, withdrawn: Vec<Withdrawal>, turns: &mut Turns) {
        self.forget_departed(moment);
        let (now, grace) = (moment.now, moment.belief.grace());
        let good = self.view.iter().filter(|one| one.condition.is_usable());
        let is_guarded = is_hard_to_believe(
            moment.belief,
            good.count(),
            withdrawn.len(),
            self.departed.len(),
        );
        let said = withdrawn.iter().filter(|one| one.said.is_some()).count();
        let mut room = MAX_ENDPOINTS_PER_SERVICE.saturating_sub(self.view.len() + said);
        let mut before = std::mem::take(&mut self.held);
        for Withdrawal { kept, said } in withdrawn {
            let known = before.remove_entry(&kept.id);
            // What was lost with most others is not gone because the others come back one by one.
            let is_guarded = is_guarded || known.is_some() && said.is_none();
            let (id, mut held) = known.unwrap_or_else(|| {
                let held = Held {
                    said: None,
                    since: now,
                    stands_since: now,
                };
                (kept.id.clone(), held)
            });
            let has_room = said.is_some() || room > 0;
            // That it works says nothing against somebody's wish that it gets no more work.
            let is_wish = said
                .as_ref()
                .is_some_and(|said| said.condition == Condition::Draining);
            let is_believed = !is_guarded
                || !has_room
                || match (moment.evidence)(&kept) {
                    Status::Unhealthy => true,
                    Status::Healthy if !is_wish => false,
                    Status::Healthy | Status::Unknown => {
                        moment.stands && now >= held.stands_since + grace
                    }
                };
            if is_believed {
                self.view.extend(said);
                turns.push((kept, Turn::Went));
                if now < held.since + grace && self.departed.len() < MAX_DEPARTED {
                    self.departed.insert(id, held.since);
                }
            } else {
                room = room.saturating_sub(usize::from(said.is_none()));
                held.said = said;
                self.view.push(kept);
                self.held.insert(id, held);
            }
        }
        self.view.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

/// True when so much was withdrawn that it is more likely a mistake.
fn is_hard_to_believe(belief: &Belief, present: usize, withdrawn: usize, departed: usize) -> bool {
    if belief.grace().is_zero() || withdrawn == 0 {
        return false;
    }
    #[expect(clippy::cast_precision_loss, reason = "there are at most 30,000")]
    let (gone, all) = (
        (withdrawn + departed) as f64,
        (present + withdrawn + departed) as f64,
    );
    present == 0 || gone > belief.share() * all
}

/// How soon it is noticed that a check has come to another result.
const LOOK: Duration = Duration::from_secs(1);
/// As many as a list has; those of one answer count in any case.
const MAX_DEPARTED: usize = MAX_ENDPOINTS_PER_SERVICE;
