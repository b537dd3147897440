//! Whether to call again, and when: one pure decision that says why.

use std::time::{Duration, Instant};

use super::{Attempt, RetryConfig};
use crate::classify::{Classified, Outcome, Retryable};
use crate::deadline::Deadline;

/// Why a call that failed is not repeated.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stop {
    /// The classifier says that repeating it is of no use.
    NotRetryable,
    /// It may have been processed, and processing it twice is not the same as once.
    Unsafe,
    /// It was made for a request that is a retry itself: the caller further up repeats it, or does not.
    Repeated,
    /// There is no copy of the request.
    NotReplayable,
    /// All attempts are used.
    Attempts,
    /// The service asked for a longer wait than [`RetryConfig::max_delay`].
    Delay,
    /// The wait would end after the deadline.
    Deadline,
    /// The budget is used up.
    Budget,
}

/// A call that did not succeed, as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// Attempts made so far.
    pub(super) attempts: u32,
    /// Which attempt of a caller further up the call is made for.
    pub(super) made_for: Attempt,
    pub(super) is_idempotent: bool,
    pub(super) has_copy: bool,
    pub(super) deadline: Option<Deadline>,
    pub(super) classified: Classified,
}

/// Returns how long to wait before the next attempt, or why there is none. The budget is asked after this.
///
/// `unit`, in `0.0..1.0`, is the jitter.
pub(super) fn decide(
    config: &RetryConfig,
    failed: &Failed,
    now: Instant,
    unit: f64,
) -> Result<Duration, Stop> {
    match failed.classified.retryable {
        Retryable::Never => return Err(Stop::NotRetryable),
        retryable if !retryable.is_safe(failed.is_idempotent) => return Err(Stop::Unsafe),
        Retryable::IfIdempotent | Retryable::Always => {}
    }
    if failed.made_for.is_retry() {
        return Err(Stop::Repeated);
    }
    if failed.attempts >= config.max_attempts.get() {
        return Err(Stop::Attempts);
    }
    if !failed.has_copy {
        return Err(Stop::NotReplayable);
    }
    let asked = failed.classified.retry_after.unwrap_or(Duration::ZERO);
    if asked > config.max_delay {
        return Err(Stop::Delay);
    }
    // On top of what was asked for, so that the callers who were all told the same don't come back at once.
    let delay = asked + backoff(config, failed.attempts).mul_f64(unit.clamp(0.0, 1.0));
    match failed.deadline {
        Some(deadline) if deadline.remaining(now) <= delay => Err(Stop::Deadline),
        _ => Ok(delay),
    }
}

/// Returns whether a result is one that a retry might better.
pub(super) fn is_worth_retrying(classified: &Classified) -> bool {
    classified.outcome != Outcome::Success
}

/// The longest wait after `attempts` attempts: `initial_delay * factor ^ (attempts - 1)`, at most `max_delay`.
fn backoff(config: &RetryConfig, attempts: u32) -> Duration {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = config.initial_delay.as_secs_f64() * config.factor.powi(exponent);
    // Too long for a duration, infinity included, is in any case longer than the bound.
    Duration::try_from_secs_f64(seconds)
        .map_or(config.max_delay, |delay| delay.min(config.max_delay))
}

#[cfg(test)]
mod tests;
