//! What share of the recent calls was bad.

use std::time::{Duration, Instant};

/// Calls of the recent past, in tenths of the window.
///
/// ```text
///   │ s1 │ s2 │ … │ s10 ╎      calls are counted in the tenth they ended in;
///   └────── window ─────┘      the oldest tenth leaves whole when a new one begins
/// ```
#[derive(Debug)]
pub(super) struct RecentCalls {
    slot: Duration,
    start: Option<Instant>,
    newest: u64,
    slots: [Share; SLOTS],
}

/// Some of a number of calls.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Share {
    /// Those meant.
    pub part: u64,
    /// All of them.
    pub of: u64,
}

impl Share {
    /// Returns the share as a number from 0 to 1; 0 of no calls.
    #[expect(clippy::cast_precision_loss, reason = "call counts are far below 2^53")]
    pub const fn ratio(self) -> f64 {
        if self.of == 0 {
            return 0.0;
        }
        self.part as f64 / self.of as f64
    }

    /// Returns the share of those not meant.
    pub(super) const fn others(self) -> Self {
        Self {
            part: self.of.saturating_sub(self.part),
            of: self.of,
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            part: self.part.saturating_add(other.part),
            of: self.of.saturating_add(other.of),
        }
    }
}

impl RecentCalls {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            slot: (window / TENTHS).max(Duration::from_nanos(1)),
            start: None,
            newest: 0,
            slots: [Share::default(); SLOTS],
        }
    }

    /// Counts a call that ended `now`.
    pub(super) fn record(&mut self, is_bad: bool, now: Instant) {
        self.move_to(now);
        let slot = &mut self.slots[index(self.newest)];
        *slot = slot.plus(Share {
            part: u64::from(is_bad),
            of: 1,
        });
    }

    /// Returns the bad ones of all calls counted, as of the last [`RecentCalls::record`].
    pub(super) fn bad(&self) -> Share {
        self.slots
            .iter()
            .fold(Share::default(), |sum, slot| sum.plus(*slot))
    }

    /// Returns the bad ones of all calls within the window that ends `now`.
    pub(super) fn bad_at(&self, now: Instant) -> Share {
        let reached = self.reached(now);
        let oldest = (reached + 1).saturating_sub(SLOTS as u64);
        (oldest..=self.newest).fold(Share::default(), |sum, slot| {
            sum.plus(self.slots[index(slot)])
        })
    }

    pub(super) fn clear(&mut self) {
        self.slots = [Share::default(); SLOTS];
    }

    fn move_to(&mut self, now: Instant) {
        self.start.get_or_insert(now);
        let reached = self.reached(now);
        for step in 1..=(reached - self.newest).min(SLOTS as u64) {
            self.slots[index(self.newest + step)] = Share::default();
        }
        self.newest = reached;
    }

    /// The tenth that `now` lies in. Readings of several threads may come out of order; time here never goes back.
    fn reached(&self, now: Instant) -> u64 {
        let since = self
            .start
            .map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        let reached = since.as_nanos() / self.slot.as_nanos().max(1);
        u64::try_from(reached)
            .unwrap_or(u64::MAX - 1)
            .max(self.newest)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is below the number of slots"
)]
const fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

const TENTHS: u32 = 10;
const SLOTS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn share(part: u64, of: u64) -> Share {
        Share { part, of }
    }

    #[test]
    fn a_tenth_leaves_whole_when_the_window_has_passed_it() {
        let start = tokio::time::Instant::now().into_std();
        let at = |millis| start + Duration::from_millis(millis);
        let mut calls = RecentCalls::new(Duration::from_secs(1));
        calls.record(true, at(0));
        calls.record(false, at(99));
        calls.record(true, at(100));
        assert_eq!(calls.bad(), share(2, 3));
        assert_eq!(calls.bad_at(at(999)), share(2, 3));
        assert_eq!(calls.bad_at(at(1_000)), share(1, 1));
        assert_eq!(calls.bad_at(at(1_100)), share(0, 0));
        calls.record(false, at(1_000));
        assert_eq!(calls.bad(), share(1, 2));
        calls.record(true, at(50));
        assert_eq!(calls.bad(), share(2, 3), "a reading from before counts now");
    }

    #[test]
    fn a_clock_that_jumps_far_does_no_harm() {
        let mut now = tokio::time::Instant::now().into_std();
        let mut calls = RecentCalls::new(Duration::from_nanos(1));
        for _ in 0..3 {
            calls.record(true, now);
            assert_eq!(calls.bad(), share(1, 1));
            now += Duration::from_hours(24 * 365 * 100);
        }
        assert_eq!(calls.bad_at(now), share(0, 0));
    }
}
