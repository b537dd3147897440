//! When to ask again: pure arithmetic of TTLs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::RandomFor;

/// Says how long to wait.
pub(super) struct Schedule {
    min: Duration,
    max: Duration,
    max_negative: Duration,
    random: Arc<RandomFor>,
}

/// For how long what was found counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Records with this TTL.
    Positive(Duration),
    /// Nothing, for this long; unknown where the server does not say (RFC 2308 section 5).
    Negative(Option<Duration>),
}

impl Schedule {
    pub(super) fn new(config: &Config, random: Arc<RandomFor>) -> Self {
        Self {
            min: config.min_ttl,
            max: config.max_ttl,
            max_negative: config.max_negative_ttl,
            random,
        }
    }

    /// After an answer. Never before its time: whoever answers from a cache would give what is left of the TTL.
    pub(super) fn after(&self, life: Life) -> Duration {
        let ttl = match life {
            Life::Positive(ttl) => ttl.clamp(self.min, self.max),
            Life::Negative(ttl) => ttl.unwrap_or(self.min).clamp(self.min, self.max_negative),
        };
        ttl + self.part_of((ttl / 10).min(SPREAD))
    }

    /// After so many failures in a row.
    pub(super) fn after_failures(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(8);
        let full = (FIRST_RETRY * (1 << doublings)).min(LAST_RETRY);
        full / 2 + self.part_of(full / 2)
    }

    fn part_of(&self, whole: Duration) -> Duration {
        let thousandths = u32::try_from((self.random)() % 1000).unwrap_or_default();
        whole * thousandths / 1000
    }
}

impl Life {
    /// Of both together, the one that ends first; what is there counts before what is not.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Positive(one), Self::Positive(two)) => Self::Positive(one.min(two)),
            (Self::Positive(ttl), Self::Negative(none))
            | (Self::Negative(none), Self::Positive(ttl)) => {
                Self::Positive(none.map_or(ttl, |none| none.min(ttl)))
            }
            (Self::Negative(one), Self::Negative(two)) => Self::Negative(match (one, two) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            }),
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("min", &self.min)
            .field("max", &self.max)
            .field("max_negative", &self.max_negative)
            .finish_non_exhaustive()
    }
}

/// Spreads queries of the same TTL, and leaves half a second of the one after which a change is to be seen.
const SPREAD: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// RFC 8767 section 5 asks not to try again at once; a server that is back is to be found within 10 s.
const LAST_RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(random: u64) -> Schedule {
        Schedule::new(&Config::new("{service}"), Arc::new(move || random))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_ttl_is_kept_between_its_bounds() {
        let exact = schedule(0);
        for (ttl, wait) in [(0, 5), (4, 5), (60, 60), (300, 300), (86400, 300)] {
            assert_eq!(exact.after(Life::Positive(seconds(ttl))), seconds(wait));
        }
        for (ttl, wait) in [(None, 5), (Some(0), 5), (Some(10), 10), (Some(3600), 30)] {
            assert_eq!(exact.after(Life::Negative(ttl.map(seconds))), seconds(wait));
        }
    }

    #[test]
    fn what_is_not_there_shortens_the_life_of_what_is_and_never_lengthens_it() {
        let (short, long) = (seconds(10), seconds(60));
        for (one, two, both) in [
            (
                Life::Positive(short),
                Life::Positive(long),
                Life::Positive(short),
            ),
            (
                Life::Positive(long),
                Life::Negative(Some(short)),
                Life::Positive(short),
            ),
            (
                Life::Positive(long),
                Life::Negative(None),
                Life::Positive(long),
            ),
            (
                Life::Negative(None),
                Life::Negative(Some(long)),
                Life::Negative(Some(long)),
            ),
            (
                Life::Negative(Some(short)),
                Life::Negative(Some(long)),
                Life::Negative(Some(short)),
            ),
        ] {
            assert_eq!(one.and(two), both);
            assert_eq!(two.and(one), both);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_asked_early_nor_half_a_second_late(ttl in 0_u64..1_000_000, random: u64) {
            let wait = schedule(random).after(Life::Positive(seconds(ttl)));
            let bound = seconds(ttl.clamp(5, 300));
            prop_assert!(wait >= bound && wait <= bound + SPREAD);
        }

        #[test]
        fn failures_are_followed_by_waits_that_grow_to_five_seconds(failures: u32, random: u64) {
            let wait = schedule(random).after_failures(failures);
            prop_assert!(wait >= FIRST_RETRY / 2 && wait <= LAST_RETRY);
            prop_assert!(failures < 4 || wait >= LAST_RETRY / 2);
        }
    }
}
