//! The recent latency of one endpoint: a peak at once, and forgotten little by little.
//!
//! # Sources
//!
//! Twitter Finagle, `PeakEwma.scala`: a sample above the average replaces it; one below it moves it by
//! `1 - exp(-dt / decay)`, where `dt` is the time since the sample before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds (upper half, a 32-bit float, 0 for none yet) and the millisecond of that (lower half, wrapping).
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

impl Latency {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes in one sample.
    pub(super) fn observe(&self, sample: Duration, decay: Duration, now: u32) {
        // Positive in any case: 0 is for none yet.
        let sample = sample.as_secs_f32().max(SHORTEST);
        let update = |before: u64| {
            let (average, at) = unpack(before);
            if sample >= average {
                return Some(pack(sample, now));
            }
            let (kept, passed) = decayed(at, decay, now);
            // A clock that went back, or the same millisecond: the rest of its samples move nothing.
            (passed > 0).then(|| pack(average.mul_add(kept, sample * (1.0 - kept)), now))
        };
        match self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
        {
            Ok(_) | Err(_) => {}
        }
    }

    /// The average in seconds, with what was forgotten since the last sample; nothing before the first.
    pub(super) fn get(&self, decay: Duration, now: u32) -> Option<f64> {
        let (average, at) = unpack(self.0.load(Ordering::Relaxed));
        let (kept, _) = decayed(at, decay, now);
        (average > 0.0).then(|| f64::from(average * kept))
    }
}

/// What is left of a latency of then, and the milliseconds since.
#[expect(
    clippy::cast_precision_loss,
    reason = "an age of hours needs no more than 24 bits"
)]
fn decayed(at: u32, decay: Duration, now: u32) -> (f32, u32) {
    let passed = now.wrapping_sub(at);
    // Readings of several threads may arrive out of order, by less than a minute.
    if passed == 0 || passed > u32::MAX - 60_000 {
        return (1.0, 0);
    }
    ((-(passed as f32) / 1e3 / decay.as_secs_f32()).exp(), passed)
}

fn pack(average: f32, at: u32) -> u64 {
    u64::from(average.to_bits()) << 32 | u64::from(at)
}

#[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits")]
const fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

/// A nanosecond.
const SHORTEST: f32 = 1e-9;
