//! What layers answer in place of the service below them: small public errors, there whichever layers are compiled in.

use std::time::Duration;

/// The breaker let no call through.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("circuit breaker is open, try again in {retry_after:?}")]
pub struct BreakerOpen {
    /// How long until a call may pass: the rest of the open time, or 1 s while all half-open slots are taken.
    pub retry_after: Duration,
}

impl BreakerOpen {
    /// Creates the error.
    pub const fn new(retry_after: Duration) -> Self {
        Self { retry_after }
    }
}

/// All places, to run and to wait, are taken.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, thiserror::Error)]
#[error("too many calls are running and waiting, try again later")]
pub struct BulkheadFull;

impl BulkheadFull {
    /// Creates the error.
    pub const fn new() -> Self {
        Self
    }
}

/// The caller made too many calls.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("more than {limit} calls in the time allowed for them, try again in {retry_after:?}")]
pub struct Limited {
    /// Calls that the exceeded window allows.
    pub limit: u32,
    /// Time until all of the window is free again.
    pub reset_after: Duration,
    /// Time until the next call can pass.
    pub retry_after: Duration,
}

impl Limited {
    /// Creates the error.
    pub const fn new(limit: u32, reset_after: Duration, retry_after: Duration) -> Self {
        Self {
            limit,
            reset_after,
            retry_after,
        }
    }
}

/// Who counts the calls of all nodes is away, and no node may decide by itself.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the store of the rate limit is away, try again in {retry_after:?}")]
pub struct LimitStoreAway {
    /// Time until it is asked again.
    pub retry_after: Duration,
}

impl LimitStoreAway {
    /// Creates the error.
    pub const fn new(retry_after: Duration) -> Self {
        Self { retry_after }
    }
}

/// The service has more calls under way than it can answer in time.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the service is overloaded, try again in {retry_after:?}")]
pub struct Overloaded {
    /// When another call is of use.
    pub retry_after: Duration,
}

impl Overloaded {
    /// Creates the error.
    pub const fn new(retry_after: Duration) -> Self {
        Self { retry_after }
    }
}

/// The call took longer than it was given.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no answer within {after:?}")]
pub struct TimedOut {
    /// How long it was given: the layer's limit, or what was left of the deadline.
    pub after: Duration,
}

impl TimedOut {
    /// Creates the error.
    pub const fn new(after: Duration) -> Self {
        Self { after }
    }
}
