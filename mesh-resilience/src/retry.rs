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

mod budget;
mod config;
mod policy;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::budget::Ledger;
use crate::deadline::Deadline;
use crate::error::ConfigError;

pub use self::config::{BudgetConfig, RetryConfig};
pub use self::policy::Stop;
pub use self::service::{ResponseFuture, Retry, RetryLayer};

/// A request that knows whether and how it can be sent again.
pub trait Replay: Sized {
    /// Returns a copy to send later, or `None` when there can't be one (a body that streams through).
    ///
    /// Called before each attempt that another may follow, so it should cost little.
    fn try_replay(&self) -> Option<Self>;

    /// Returns whether processing the request twice has the effect of processing it once.
    fn is_idempotent(&self) -> bool;

    /// Returns the moment after which no attempt is of use. Default none.
    fn deadline(&self) -> Option<Deadline> {
        None
    }

    /// Tells a copy that it is about to be sent as attempt number `attempt` (2 is the first retry). Default nothing.
    fn begin_attempt(&mut self, attempt: u32) {
        let _ = attempt;
    }
}

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

/// Bounds the retries of all calls to a service together, so that retries can't multiply an overload.
///
/// A retry is allowed while the retries of the last `window` number at most `ratio` of the requests in it, or `reserve`,
/// whichever is more. So at any moment
///
/// `retries(window) <= max(ratio * requests(window), reserve)`
///
/// where the window ends at the latest retry. Time is counted in tenths of the window, rounded towards fewer retries.
/// Clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    ledger: Arc<Mutex<Ledger>>,
}

impl Budget {
    /// Creates a budget in which nothing has been spent.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`BudgetConfig`] for their ranges.
    pub fn new(config: BudgetConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            ledger: Arc::new(Mutex::new(Ledger::new(config))),
        })
    }

    /// Counts a first attempt, which adds to the budget.
    pub fn record_request(&self, now: Instant) {
        self.ledger.lock().record_request(now);
    }

    /// Takes one retry out of the budget, or returns `false` if it is used up.
    #[must_use]
    pub fn try_retry(&self, now: Instant) -> bool {
        self.ledger.lock().try_retry(now)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("ledger", &*self.ledger.lock())
            .finish()
    }
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Budget>();
};
