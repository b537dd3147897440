//! When a certificate is renewed, and how long to wait when that fails.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_resilience::random::Random;

use crate::identity::judge::Validity;

/// How long after `now` a certificate is to be renewed: at two thirds of its life, give or take a tenth of that, so that
/// certificates that were issued together are not renewed together.
pub(crate) fn renew_after(validity: Validity, now: SystemTime, random: &dyn Random) -> Duration {
    let life = validity
        .not_after
        .duration_since(validity.not_before)
        .unwrap_or_default();
    let due = validity.not_before + jitter(life * 2 / 3, random);
    due.duration_since(now)
        .unwrap_or_default()
        .max(SHORTEST_RENEWAL)
}

/// Waits between tries: each is twice as long as the one before, up to a minute, with jitter.
#[derive(Clone)]
pub(crate) struct Backoff {
    next: Duration,
    random: Arc<dyn Random>,
}

impl Backoff {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        Self {
            next: FIRST_WAIT,
            random,
        }
    }

    /// How long to wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST_WAIT);
        jitter(wait, &*self.random)
    }

    /// A try was a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST_WAIT;
    }
}

/// Between nine tenths and eleven tenths of `duration`.
fn jitter(duration: Duration, random: &dyn Random) -> Duration {
    let share = u32::try_from(random.next_u64() % 2001).unwrap_or(1000);
    duration / 10_000 * (9000 + share)
}

/// However short certificates live, none is asked for more often.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
