//! The token bucket of one key in one word: the generic cell rate algorithm as virtual scheduling.
//!
//! The word is the theoretical arrival time: when the bucket is full again. `n` calls take `n` intervals of it, and pass
//! while it stays within `burst` intervals from now.

use super::config::Bucket;
use super::verdict::Part;
use crate::error::ConfigError;

/// A bucket as it is computed with. Times are nanoseconds of the limiter's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gcra {
    burst: u32,
    /// Time in which one call's place is refilled.
    interval: u64,
    /// Time in which an empty bucket is refilled.
    tolerance: u64,
}

impl Gcra {
    pub(super) fn new(bucket: &Bucket) -> Result<Self, ConfigError> {
        bucket.check()?;
        let period = u64::try_from(bucket.period.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: never faster than was asked for.
        let interval = period.div_ceil(u64::from(bucket.rate.get()));
        Ok(Self {
            burst: bucket.burst.get(),
            interval,
            tolerance: interval.saturating_mul(u64::from(bucket.burst.get())),
        })
    }

    pub(super) const fn burst(&self) -> u32 {
        self.burst
    }

    /// What the bucket says of `cost` calls, `full_at` being its word.
    #[inline]
    pub(super) fn judge(&self, cost: u32, full_at: u64, now: u64) -> Part {
        let used = full_at.saturating_sub(now);
        let remaining = self.tolerance.saturating_sub(used) / self.interval;
        let wanted = self.interval.saturating_mul(u64::from(cost));
        Part {
            limit: self.burst,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_after: used,
            retry_after: if cost > self.burst {
                self.tolerance
            } else {
                (used + wanted).saturating_sub(self.tolerance)
            },
        }
    }

    /// The word after `cost` calls, which are counted whether they fit or not.
    #[inline]
    pub(super) fn count(&self, cost: u32, full_at: u64, now: u64) -> u64 {
        let wanted = self.interval.saturating_mul(u64::from(cost));
        (full_at.max(now) + wanted.min(self.tolerance)).min(now + self.tolerance)
    }
}
