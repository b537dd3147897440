//! When the next stream may be begun.

use std::time::Duration;
use std::time::Instant;

/// Attempts to have a stream; takes the time and randomness as arguments.
#[derive(Debug)]
pub(super) struct Turns {
    servers: u32,
    /// Attempts that failed one after the other.
    failures: u32,
    not_before: Option<Instant>,
}

impl Turns {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            servers: u32::try_from(servers).unwrap_or(u32::MAX).max(1),
            failures: 0,
            not_before: None,
        }
    }

    /// The stream that was begun at `started` was of use. The next may follow at once, unless it was very short.
    pub(super) fn worked(&mut self, started: Instant, random: u64) {
        self.failures = 0;
        self.not_before = started.checked_add(pause(0, random));
    }

    /// A stream was of use before it failed: what failed before it is past.
    pub(super) fn forgive(&mut self) {
        self.failures = 0;
    }

    /// The attempt that was begun at `started` was of no use. The other servers are tried at once, all of them again
    /// after a pause that grows.
    pub(super) fn failed(&mut self, started: Instant, now: Instant, random: u64) {
        self.failures = self.failures.saturating_add(1);
        let rounds = self.failures / self.servers;
        self.not_before = if self.failures.is_multiple_of(self.servers) {
            now.checked_add(pause(rounds - 1, random))
        } else {
            Some(started)
        };
    }

    /// Before this no stream is to be begun; none is at once.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }
}

/// Doubles with each round; the half of it is random, so that a thousand nodes do not come back at the same moment.
fn pause(rounds: u32, random: u64) -> Duration {
    let whole = FIRST_PAUSE
        .saturating_mul(1 << rounds.min(16))
        .min(MAX_PAUSE);
    let thousandths = u32::try_from(random % 1000).unwrap_or_default();
    whole / 2 + whole / 2 * thousandths / 1000
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Below ten seconds, within which a server that is back is to be found.
const MAX_PAUSE: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_eight_seconds_and_half_of_each_is_random() {
        for (rounds, low) in [
            (0, 500),
            (1, 1000),
            (2, 2000),
            (3, 4000),
            (4, 4000),
            (99, 4000),
        ] {
            assert_eq!(pause(rounds, 0), Duration::from_millis(low), "{rounds}");
            let high = pause(rounds, 999);
            assert!(high < 2 * Duration::from_millis(low), "{rounds}");
            assert!(high > Duration::from_millis(low * 2 * 99 / 100), "{rounds}");
        }
    }

    #[test]
    fn all_servers_are_tried_before_there_is_a_pause() {
        let start = tokio::time::Instant::now().into_std();
        let mut turns = Turns::new(2);
        assert_eq!(turns.not_before(), None);
        turns.failed(start, start, 0);
        assert_eq!(turns.not_before(), Some(start));
        turns.failed(start, start, 0);
        assert_eq!(turns.not_before(), Some(start + Duration::from_millis(500)));
        turns.failed(start, start, 0);
        turns.failed(start, start, 0);
        assert_eq!(turns.not_before(), Some(start + Duration::from_secs(1)));
        turns.worked(start, 0);
        assert_eq!(turns.not_before(), Some(start + Duration::from_millis(500)));
    }
}
