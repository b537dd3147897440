//! Where layers get their randomness from: a parameter, so that a test or a simulation decides it.
//!
//! # Sources
//!
//! - Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure 18 (`SplitMix64`).

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers that several threads may share. Not for keys or nonces.
///
/// Closures `Fn() -> u64` implement it.
pub trait Random: Send + Sync {
    /// Returns the next 64 random bits.
    fn next_u64(&self) -> u64;

    /// Returns a number in `0.0..1.0`.
    fn unit(&self) -> f64 {
        unit(self.next_u64())
    }

    /// Returns a number in `0..bound`, or 0 for a bound of 0.
    ///
    /// Multiply and shift (Lemire, "Fast Random Integer Generation in an Interval", 2019, section 3);
    /// the bias is below `bound / 2^64`.
    fn below(&self, bound: usize) -> usize {
        below(self.next_u64(), bound)
    }
}

impl<F: Fn() -> u64 + Send + Sync> Random for F {
    fn next_u64(&self) -> u64 {
        self()
    }
}

/// A small, fast generator: one atomic addition and a mix per number, never blocks.
pub struct SplitMix64 {
    state: AtomicU64,
}

impl SplitMix64 {
    /// Creates a generator whose numbers follow from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }

    /// Creates a generator seeded from the operating system, through the keys of [`RandomState`].
    pub fn from_entropy() -> Self {
        Self::new(RandomState::new().hash_one(0_u64))
    }
}

impl Random for SplitMix64 {
    fn next_u64(&self) -> u64 {
        let z = self
            .state
            .fetch_add(GOLDEN_GAMMA, Ordering::Relaxed)
            .wrapping_add(GOLDEN_GAMMA);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Default for SplitMix64 {
    fn default() -> Self {
        Self::from_entropy()
    }
}

impl fmt::Debug for SplitMix64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitMix64").finish_non_exhaustive()
    }
}

#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below `bound`, which is a usize"
)]
fn below(bits: u64, bound: usize) -> usize {
    ((u128::from(bits) * bound as u128) >> 64) as usize
}

/// The odd integer nearest 2^64 divided by the golden ratio (section 5 of the paper).
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_reference_sequence() {
        // The first outputs for seed 1234567 of the reference implementation by Vigna.
        let random = SplitMix64::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn units_and_bounded_numbers_stay_in_range() {
        let lowest = || 0;
        let highest = || u64::MAX;
        assert!(Random::unit(&lowest) >= 0.0);
        assert!(Random::unit(&highest) < 1.0);
        assert_eq!(
            (
                Random::below(&highest, 7),
                Random::below(&lowest, 7),
                Random::below(&highest, 0)
            ),
            (6, 0, 0)
        );
    }
}
