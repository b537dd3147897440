//! Retry: calls again what failed, slower each time, and only where that can't do harm.
//!
//! Repeated is a request that
//!
//! - is worth it: its [`Classify`](crate::classify::Classify) says so;
//! - is safe: it is idempotent, or the service provably did not process it ([`Retryable::Always`]);
//! - can be repeated: [`Replay::try_replay`] gives a copy;
//! - has time: the wait ends before its deadline;
//! - has budget: see [`Budget`].
//!
//! Otherwise the caller gets the last answer or error as it is.
//!
//! # Sources
//!
//! - Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
//! - Beyer et al., "Site Reliability Engineering", chapter 21 (retry budgets); Finagle's `RetryBudget`.
//! - RFC 9110 section 9.2.2 (idempotent methods), 10.2.3 (`Retry-After`).
//!
//! [`Retryable::Always`]: crate::classify::Retryable::Always

mod config;
mod policy;
mod service;

use std::time::Duration;

pub use self::config::RetryConfig;
pub use self::policy::Stop;
pub use self::service::{ResponseFuture, Retry, RetryLayer};
pub use crate::budget::{Budget, BudgetConfig};
pub use crate::replay::Replay;

/// Is told what a retry layer does, for metrics.
pub trait Observe: Send + Sync {
    /// Attempt number `attempt` will start after `delay`.
    fn retrying(&self, attempt: u32, delay: Duration) {
        let _ = (attempt, delay);
    }

    /// A call that failed is not repeated.
    fn gave_up(&self, attempts: u32, reason: Stop) {
        let _ = (attempts, reason);
    }
}
