//! A budget: so many repeats for so many requests, whoever repeats them.
//!
//! Whoever sends a request again takes from one first.
//!
//! # Sources
//!
//! - Beyer et al., "Site Reliability Engineering", chapter 21 (retry budgets); Finagle's `RetryBudget`.

mod ledger;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::ledger::Ledger;
use crate::error::ConfigError;

/// The settings of one budget.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetConfig {
    /// Retries allowed, as part of the requests. Default 0.2, range 0 to 10.
    pub ratio: f64,
    /// Retries allowed within the window however few requests there are. Default 10, so one a second: a quiet service
    /// can retry too, and one with more than 5 requests a second never exceeds `ratio`.
    pub reserve: u32,
    /// How far back requests and retries are counted. Default 10 s (Finagle's), must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub window: Duration,
}

impl BudgetConfig {
    /// Sets the retries allowed, as part of the requests.
    #[must_use]
    pub const fn with_ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets the retries allowed however few requests there are.
    #[must_use]
    pub const fn with_reserve(mut self, reserve: u32) -> Self {
        self.reserve = reserve;
        self
    }

    /// Sets how far back requests and retries are counted.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_duration("window", self.window)?;
        ConfigError::check_range("ratio", self.ratio, 0.0, 10.0)
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            ratio: DEFAULT_RATIO,
            reserve: DEFAULT_RESERVE,
            window: DEFAULT_WINDOW,
        }
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

    /// Returns what was spent and what may be, for people.
    pub fn snapshot(&self, now: Instant) -> BudgetSnapshot {
        self.ledger.lock().snapshot(now)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("ledger", &*self.ledger.lock())
            .finish()
    }
}

/// A budget as it stands.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BudgetSnapshot {
    /// First attempts within the window.
    pub requests: u64,
    /// Retries within the window.
    pub retries: u64,
    /// Retries that the window allows, those included.
    pub allowed: u64,
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Budget>();
};

const DEFAULT_RATIO: f64 = 0.2;
const DEFAULT_RESERVE: u32 = 10;
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
