//! How far and how fast the limit moves.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::ConfigError;

/// The settings of one limit.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct ShedConfig {
    /// Calls that may always be under way together. Default 4.
    pub min_limit: NonZeroU32,
    /// The limit before anything is known. Default 100, between the other two.
    pub initial_limit: NonZeroU32,
    /// Calls that may be under way together at most, however fast they are. Default 1000.
    pub max_limit: NonZeroU32,
    /// How much longer than unhindered a call may take: more lets more calls wait in the service, less may leave it idle.
    /// Default 1.25 (Envoy's buffer of 25 %), range 1.05 to 4.
    pub tolerance: f64,
    /// How often the limit moves. Default 100 ms (Envoy's), must be positive; longer where calls take longer.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub interval: Duration,
    /// Time between two searches for what a call takes unhindered. Default 10 s (that of BBR), must be positive; longer where
    /// calls take longer.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub probe_interval: Duration,
}

impl ShedConfig {
    /// Sets how many calls may always be under way.
    #[must_use]
    pub const fn with_min_limit(mut self, min_limit: NonZeroU32) -> Self {
        self.min_limit = min_limit;
        self
    }

    /// Sets the limit to begin with.
    #[must_use]
    pub const fn with_initial_limit(mut self, initial_limit: NonZeroU32) -> Self {
        self.initial_limit = initial_limit;
        self
    }

    /// Sets how many calls may be under way at most.
    #[must_use]
    pub const fn with_max_limit(mut self, max_limit: NonZeroU32) -> Self {
        self.max_limit = max_limit;
        self
    }

    /// Sets how much longer than unhindered a call may take.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets how often the limit moves.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the time between two searches for the unhindered latency.
    #[must_use]
    pub const fn with_probe_interval(mut self, probe_interval: Duration) -> Self {
        self.probe_interval = probe_interval;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.min_limit.get().into(), self.max_limit.get().into());
        ConfigError::check_range("min_limit", min, 1.0, max)?;
        ConfigError::check_range("initial_limit", self.initial_limit.get().into(), min, max)?;
        ConfigError::check_range("tolerance", self.tolerance, MIN_TOLERANCE, MAX_TOLERANCE)?;
        ConfigError::check_duration("interval", self.interval)?;
        ConfigError::check_duration("probe_interval", self.probe_interval)
    }
}

impl Default for ShedConfig {
    fn default() -> Self {
        Self {
            min_limit: DEFAULT_MIN_LIMIT,
            initial_limit: DEFAULT_INITIAL_LIMIT,
            max_limit: DEFAULT_MAX_LIMIT,
            tolerance: DEFAULT_TOLERANCE,
            interval: DEFAULT_INTERVAL,
            probe_interval: DEFAULT_PROBE_INTERVAL,
        }
    }
}

/// One more than Envoy's, so that half of it is still two.
const DEFAULT_MIN_LIMIT: NonZeroU32 = NonZeroU32::new(4).unwrap();
/// The default of the bulkhead: a limit that a service reaches only in trouble.
const DEFAULT_INITIAL_LIMIT: NonZeroU32 = NonZeroU32::new(100).unwrap();
const DEFAULT_MAX_LIMIT: NonZeroU32 = NonZeroU32::new(1000).unwrap();
const DEFAULT_TOLERANCE: f64 = 1.25;
const MIN_TOLERANCE: f64 = 1.05;
const MAX_TOLERANCE: f64 = 4.0;
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);
const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(10);
