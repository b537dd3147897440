//! What a result means while one or two attempts run: one pure decision.

use std::time::{Duration, Instant};

use crate::classify::{Classified, Outcome, Retryable};
use crate::deadline::Deadline;

/// One call, as the decision sees it.
#[derive(Debug)]
pub(super) struct Race {
    second: Second,
    deadline: Option<Deadline>,
    max_delay: Duration,
}

/// Where the second attempt stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Second {
    /// It may start at this moment.
    At(Instant),
    /// It has started, or never will.
    No,
}

/// What to do about a result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// It is the answer of the call; what still runs is dropped.
    Answer,
    /// Forget it; the other attempt goes on.
    Forget,
    /// Keep it in case that no second attempt can be made, which is due at this moment.
    Second(Instant),
}

impl Race {
    /// A call whose first attempt starts `now`; `delay` is none where there must be no second one.
    pub(super) fn new(
        now: Instant,
        delay: Option<Duration>,
        deadline: Option<Deadline>,
        max_delay: Duration,
    ) -> Self {
        let mut race = Self {
            second: Second::No,
            deadline,
            max_delay,
        };
        if let Some(delay) = delay {
            race.second = race.due(now, delay);
        }
        race
    }

    /// Returns when the second attempt is due, if one is still to come.
    pub(super) const fn second_at(&self) -> Option<Instant> {
        match self.second {
            Second::At(at) => Some(at),
            Second::No => None,
        }
    }

    /// The second attempt starts, or can't.
    pub(super) const fn second_is_decided(&mut self) {
        self.second = Second::No;
    }

    /// Decides about a result that came `now`; `other_runs` says whether the other attempt is still under way.
    pub(super) fn finished(
        &mut self,
        classified: &Classified,
        other_runs: bool,
        now: Instant,
    ) -> Next {
        let is_final = match classified.outcome {
            Outcome::Success | Outcome::CallerError => true,
            Outcome::Failure | Outcome::Unknown => classified.retryable == Retryable::Never,
        };
        if is_final {
            return Next::Answer;
        }
        if other_runs {
            return Next::Forget;
        }
        if self.second == Second::No {
            return Next::Answer;
        }
        // The other side asks to be left alone for a while (gRPC A6, "Server Pushback"), or the second starts at once.
        let wait = classified.retry_after.unwrap_or(Duration::ZERO);
        self.second = if wait > self.max_delay {
            Second::No
        } else {
            self.due(now, wait)
        };
        self.second_at().map_or(Next::Answer, Next::Second)
    }

    /// A second attempt `delay` from now, if the call is still waited for then.
    fn due(&self, now: Instant, delay: Duration) -> Second {
        let is_late = |deadline: Deadline| deadline.remaining(now) <= delay;
        match now.checked_add(delay) {
            Some(at) if !self.deadline.is_some_and(is_late) => Second::At(at),
            _ => Second::No,
        }
    }
}

#[cfg(test)]
mod tests;
