//! How long refusals take: whether the time of an operation with a secret says what was wrong with its input.
//!
//! By default a short form that a busy machine can't make fail; `cargo xtask timing --samples N` (or
//! `MESH_TIMING_SAMPLES=N`) measures for real and prints tables, for both engines.
//!
//! # Sources
//!
//! Manger 2001 and Kario, "Everlasting ROBOT: the Marvin Attack", 2023 (probes, paired comparison of interleaved samples,
//! sign test); Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?", 2017 (Welch's t, cropping, 4.5).
#![cfg(all(feature = "aws-lc", feature = "rustcrypto"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]
#![expect(
    clippy::print_stdout,
    reason = "the tables are what the long form is for"
)]

mod compare;
mod oaep;
mod probes;
mod statistics;

use std::time::Instant;

/// How many samples the long form is to take; `None` for the short one.
pub(crate) fn samples() -> Option<usize> {
    std::env::var("MESH_TIMING_SAMPLES")
        .ok()
        .map(|text| text.parse().unwrap())
}

/// Nanoseconds that `work` takes, without dropping what it gives.
pub(crate) fn nanoseconds<T>(work: impl FnOnce() -> T) -> f64 {
    #[expect(clippy::disallowed_methods, reason = "the time is what is tested")]
    let start = Instant::now();
    let made = std::hint::black_box(work());
    let took = start.elapsed();
    drop(made);
    took.as_secs_f64() * 1e9
}

/// Chance that can be repeated (`SplitMix64`; Steele, Lea and Flood 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at + 1));
        }
    }
}
