//! Durations counted in buckets whose width grows with them: little memory, and any quantile to within 3.2 %.
//!
//! # Sources
//!
//! - Tene, `HdrHistogram` (buckets of equal width inside each power of two).

use std::time::Duration;

/// Counts durations; a quantile is the upper edge of the bucket that it lies in.
///
/// One unit is 1,024 ns. Up to 32 units each has a bucket; from there on each power of two is cut into 32.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Box<[u32; OCTAVES * PARTS]>,
    /// Sums of the buckets of each power of two, so that a quantile looks at some sixty numbers and not at all.
    octaves: [u32; OCTAVES],
    len: u32,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: Box::new([0; OCTAVES * PARTS]),
            octaves: [0; OCTAVES],
            len: 0,
        }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let place = place(duration);
        // At 4 billion it stays as it is; nobody keeps one that long.
        if let Some(len) = self.len.checked_add(1) {
            self.len = len;
            self.buckets[place] += 1;
            self.octaves[place / PARTS] += 1;
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        if self.len > 0 {
            self.buckets.fill(0);
            self.octaves.fill(0);
            self.len = 0;
        }
    }
}

/// Returns what `part` (0 to 1) of the durations in all of `histograms` do not exceed; none of none.
pub(crate) fn quantile(histograms: &[&Histogram], part: f64) -> Option<Duration> {
    let len: u64 = histograms.iter().map(|one| u64::from(one.len)).sum();
    let mut left = rank(len, part)?;
    let sum = |of: &dyn Fn(&Histogram) -> u32| -> u64 {
        histograms.iter().map(|one| u64::from(of(one))).sum()
    };
    for octave in 0..OCTAVES {
        let inside = sum(&|one| one.octaves[octave]);
        if inside < left {
            left -= inside;
            continue;
        }
        for place in octave * PARTS..(octave + 1) * PARTS {
            let inside = sum(&|one| one.buckets[place]);
            if inside >= left {
                return Some(upper_edge(place));
            }
            left -= inside;
        }
    }
    None
}

/// The nearest-rank definition of a quantile: the smallest value that at least `part` of all do not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^53 and the part is between 0 and 1"
)]
fn rank(len: u64, part: f64) -> Option<u64> {
    let rank = (len as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
    (len > 0).then(|| rank.clamp(1, len))
}

fn place(duration: Duration) -> usize {
    let units = u64::try_from(duration.as_nanos() / UNIT_NANOS).unwrap_or(u64::MAX);
    let units = usize::try_from(units).unwrap_or(usize::MAX).min(LONGEST);
    let Some(shift) = units
        .checked_ilog2()
        .and_then(|log| log.checked_sub(PARTS_LOG))
    else {
        return units;
    };
    // The highest bit is the octave's, the five below it are the part.
    (shift as usize) * PARTS + (units >> shift)
}

fn upper_edge(place: usize) -> Duration {
    let octave = place / PARTS;
    let (shift, part) = match octave.checked_sub(1) {
        None => (0, place),
        Some(shift) => (shift, place - shift * PARTS),
    };
    let units = (part as u64 + 1) << shift;
    Duration::from_nanos(units.saturating_mul(1024))
}

const UNIT_NANOS: u128 = 1024;
const PARTS_LOG: u32 = 5;
const PARTS: usize = 1 << PARTS_LOG;
/// The last holds 18 to 37 minutes and all that is longer.
const OCTAVES: usize = 27;
const LONGEST: usize = (PARTS << (OCTAVES - 1)) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_is_the_exact_one_or_a_little_more(
            nanos in prop::collection::vec(0_u64..2_000_000_000_000, 1..200),
            part in 0.0..=1.0_f64,
        ) {
            let mut histogram = Histogram::new();
            for nanos in &nanos {
                histogram.record(Duration::from_nanos(*nanos));
            }
            let mut sorted = nanos.clone();
            sorted.sort_unstable();
            let rank = usize::try_from(rank(sorted.len() as u64, part).unwrap()).unwrap();
            let exact = Duration::from_nanos(sorted[rank - 1]);
            let found = quantile(&[&histogram], part).unwrap();
            prop_assert!(found >= exact, "{found:?} {exact:?}");
            prop_assert!(found <= exact.mul_f64(1.0 + 1.0 / 32.0) + Duration::from_nanos(1024), "{found:?} {exact:?}");
        }
    }

    #[test]
    fn every_bucket_ends_where_the_next_begins() {
        for place in 0..OCTAVES * PARTS - 1 {
            let edge = upper_edge(place);
            assert_eq!(super::place(edge), place + 1);
            assert_eq!(
                super::place(edge.saturating_sub(Duration::from_nanos(1))),
                place
            );
        }
        assert_eq!(place(Duration::MAX), OCTAVES * PARTS - 1);
    }

    #[test]
    fn an_empty_one_has_no_quantile() {
        let mut histogram = Histogram::new();
        assert_eq!(quantile(&[&histogram], 0.5), None);
        histogram.record(Duration::from_millis(1));
        assert_eq!(histogram.len(), 1);
        histogram.clear();
        assert_eq!(quantile(&[&histogram], 0.5), None);
    }
}
