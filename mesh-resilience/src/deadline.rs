//! By when a call must be answered, and requests that carry that moment.

#[cfg(feature = "http")]
pub mod carried;

use std::time::{Duration, Instant};

/// The moment after which nobody waits for the answer any more.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline at `at`.
    pub const fn at(at: Instant) -> Self {
        Self(at)
    }

    /// A deadline `timeout` after `now`; a timeout too long to represent becomes one of some thirty years.
    pub fn after(now: Instant, timeout: Duration) -> Self {
        Self(
            now.checked_add(timeout)
                .or_else(|| now.checked_add(FAR_FUTURE))
                .unwrap_or(now),
        )
    }

    /// Returns the moment itself.
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// Returns how much time is left, zero once it is past.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Returns whether no time is left.
    pub fn is_past(self, now: Instant) -> bool {
        now >= self.0
    }

    /// Returns the earlier of two deadlines.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        self.min(other)
    }
}

/// A request that may know by when it must be answered.
pub trait HasDeadline {
    /// Returns the deadline, if there is one.
    fn deadline(&self) -> Option<Deadline>;
}

/// A request that can be given a deadline.
pub trait SetDeadline: HasDeadline {
    /// Replaces the deadline.
    fn set_deadline(&mut self, deadline: Deadline);
}

#[cfg(feature = "http")]
impl<B> HasDeadline for http::Request<B> {
    /// Reads the [`Deadline`] from the request's extensions.
    fn deadline(&self) -> Option<Deadline> {
        self.extensions().get().copied()
    }
}

#[cfg(feature = "http")]
impl<B> SetDeadline for http::Request<B> {
    /// Puts the [`Deadline`] into the request's extensions.
    fn set_deadline(&mut self, deadline: Deadline) {
        self.extensions_mut().insert(deadline);
    }
}

/// Tokio's own "far future", which every platform can represent.
const FAR_FUTURE: Duration = Duration::from_hours(24 * 365 * 30);
