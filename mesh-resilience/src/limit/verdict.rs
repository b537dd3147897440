//! What a limiter answers.

use std::time::Duration;

/// The answer of a limiter, about the window or bucket that is nearest to its limit.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether the call may pass.
    pub allowed: bool,
    /// Calls that the window allows, or the bucket at once (`X-RateLimit-Limit`).
    pub limit: u32,
    /// Calls that would pass now, after this one (`X-RateLimit-Remaining`).
    pub remaining: u32,
    /// Time until all of the window is free again if no more calls come (`X-RateLimit-Reset`).
    pub reset_after: Duration,
    /// Time until the same call can pass; zero if it did (`Retry-After`). A call that costs more than the limit never can,
    /// and is told the whole window.
    pub retry_after: Duration,
}

impl Verdict {
    /// What a store of one's own says: limit and remaining calls, then when all is free again and when to come back.
    pub const fn new(
        allowed: bool,
        (limit, remaining): (u32, u32),
        (reset_after, retry_after): (Duration, Duration),
    ) -> Self {
        Self {
            allowed,
            limit,
            remaining,
            reset_after,
            retry_after,
        }
    }
}

/// What one window or bucket says. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) reset_after: u64,
    /// Zero if it allows the call.
    pub(super) retry_after: u64,
}

impl Part {
    /// What is told where nothing else is.
    pub(super) const REFUSES: Self = Self {
        limit: 0,
        remaining: 0,
        reset_after: 0,
        retry_after: 1,
    };

    /// Whether this one is to be told rather than `other`: the longest wait, else the fewest calls left.
    #[inline]
    pub(super) const fn is_tighter_than(&self, other: &Self) -> bool {
        if self.retry_after == other.retry_after {
            self.remaining < other.remaining
        } else {
            self.retry_after > other.retry_after
        }
    }

    #[inline]
    pub(super) const fn verdict(&self) -> Verdict {
        Verdict {
            allowed: self.retry_after == 0,
            limit: self.limit,
            remaining: self.remaining,
            reset_after: Duration::from_nanos(self.reset_after),
            retry_after: Duration::from_nanos(self.retry_after),
        }
    }
}
