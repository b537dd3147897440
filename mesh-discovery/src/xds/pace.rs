//! How fast responses are taken: a server that floods is slowed down, by its own flow control in the end.
//!
//! # Sources
//!
//! The generic cell rate algorithm, ITU-T I.371 annex A, in its form with a theoretical arrival time.

use std::time::Duration;
use std::time::Instant;

/// A limit on responses, by number and size; takes the time as an argument.
#[derive(Debug, Default)]
pub(super) struct Pace {
    arrival: Option<Instant>,
}

impl Pace {
    /// When the next response may be read; none is at once.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.arrival.and_then(|arrival| arrival.checked_sub(BURST))
    }

    /// A response of so many bytes was read.
    pub(super) fn read(&mut self, now: Instant, bytes: usize) {
        let pieces = u32::try_from(bytes / PIECE).unwrap_or(u32::MAX);
        let cost = EACH.saturating_mul(pieces.saturating_add(1));
        let arrival = self.arrival.map_or(now, |arrival| arrival.max(now));
        self.arrival = arrival.checked_add(cost);
    }
}

/// 100 responses a second, each with 64 KiB free.
const EACH: Duration = Duration::from_millis(10);
const PIECE: usize = 64 << 10;
/// As much at once as two seconds allow: 200 small responses, or 12 MiB.
const BURST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    // threat 51
    #[test]
    fn a_flood_is_slowed_down_and_a_burst_is_not() {
        let start = tokio::time::Instant::now().into_std();
        let mut pace = Pace::default();
        for _ in 0..200 {
            assert!(pace.not_before().is_none_or(|at| at <= start));
            pace.read(start, 100);
        }
        pace.read(start, 100);
        assert_eq!(pace.not_before(), Some(start + EACH));
        pace.read(start, 4 << 20);
        assert_eq!(pace.not_before(), Some(start + EACH + 65 * EACH));
    }
}
