//! How often, how fast and how much is retried.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::ConfigError;

/// The settings of one retry layer.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// Attempts in all, the first included. Default 3; 1 never retries.
    pub max_attempts: NonZeroU32,
    /// Longest wait before the first retry. Default 1 s.
    ///
    /// With full jitter the wait is drawn evenly between nothing and this, so half of it on average.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub initial_delay: Duration,
    /// How much longer each further wait may be. Default 2, range 1 to 10.
    pub factor: f64,
    /// Bound on each wait. Default 25 s.
    ///
    /// A wait that the service asks for (`Retry-After`) comes on top, and is bounded by this too: if it asks for more,
    /// there is no retry.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub max_delay: Duration,
}

impl RetryConfig {
    /// Sets the number of attempts, the first included.
    #[must_use]
    pub const fn with_max_attempts(mut self, max_attempts: NonZeroU32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Sets the longest wait before the first retry.
    #[must_use]
    pub const fn with_initial_delay(mut self, initial_delay: Duration) -> Self {
        self.initial_delay = initial_delay;
        self
    }

    /// Sets how much longer each further wait may be.
    #[must_use]
    pub const fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the bound on each wait.
    #[must_use]
    pub const fn with_max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_range("factor", self.factor, 1.0, 10.0)
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            initial_delay: DEFAULT_INITIAL_DELAY,
            factor: DEFAULT_FACTOR,
            max_delay: DEFAULT_MAX_DELAY,
        }
    }
}

const DEFAULT_MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).unwrap();
const DEFAULT_INITIAL_DELAY: Duration = Duration::from_secs(1);
const DEFAULT_FACTOR: f64 = 2.0;
/// Below the default total timeout of 30 s, so that the longest wait still leaves time for the call.
const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(25);
