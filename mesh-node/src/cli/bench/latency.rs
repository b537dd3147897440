//! Durations counted in buckets of 3 %, so that recording one costs a few instructions and no memory.

use std::time::Duration;

/// Counts of durations.
#[derive(Debug)]
pub(super) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
        }
    }

    pub(super) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket(nanos)) {
            *bucket += 1;
            self.count += 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
        self.count += other.count;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The duration that this part of all stays at or below; zero if there is none.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among fewer than 2^52"
    )]
    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        let rank = (self.count as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Duration::from_nanos(reached.map_or(0, highest))
    }
}

/// Two to the power of `DETAIL` buckets for each doubling.
fn bucket(nanos: u64) -> usize {
    let magnitude = (u64::BITS - nanos.leading_zeros()).saturating_sub(DETAIL + 1);
    let low = usize::try_from(nanos >> magnitude).unwrap_or(0);
    magnitude as usize * (1 << DETAIL) + low
}

/// The highest duration of a bucket.
fn highest(bucket: usize) -> u64 {
    let magnitude = (bucket >> DETAIL).saturating_sub(1);
    let low = bucket - (magnitude << DETAIL);
    ((low as u64 + 1) << magnitude).wrapping_sub(1)
}

const DETAIL: u32 = 5;
const BUCKETS: usize = (u64::BITS as usize - DETAIL as usize + 1) << DETAIL;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_a_bucket_that_is_no_more_than_a_thirtieth_too_high() {
        let powers = (0..64).map(|bits| 1_u64 << bits);
        let around = powers.flat_map(|power| [power - 1, power, power + power / 3]);
        for nanos in around.chain([0, u64::MAX]) {
            let high = highest(bucket(nanos));
            assert!(bucket(nanos) < BUCKETS, "{nanos}");
            assert!(
                high >= nanos && high - nanos <= nanos / 30,
                "{nanos}: {high}"
            );
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        for micros in 1..=100 {
            latencies.record(Duration::from_micros(micros));
        }
        let half = latencies.quantile(0.5);
        assert!((50..52).contains(&half.as_micros()), "{half:?}");
        let most = latencies.quantile(0.99);
        assert!((99..103).contains(&most.as_micros()), "{most:?}");

        let mut both = Latencies::new();
        both.add(&latencies);
        both.add(&latencies);
        assert_eq!(both.count(), 200);
        assert_eq!(both.quantile(0.5), half);
        both.clear();
        assert_eq!(both.count(), 0);
    }
}
