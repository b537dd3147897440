//! Outlier detection: takes endpoints that fail in a row out of service for a while.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Endpoint, EndpointState};
use crate::classify::Outcome;
use crate::error::ConfigError;

/// When an endpoint is ejected, and for how long.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierConfig {
    /// Failures in a row that eject an endpoint. Default 5.
    pub consecutive_failures: NonZeroU32,
    /// Length of the first ejection; the second in short order takes twice that, and so on. Default 30 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub ejection: Duration,
    /// Bound on the length of an ejection. Default 300 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub max_ejection: Duration,
    /// Time in service after which one earlier ejection is forgiven. Default 30 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub interval: Duration,
    /// Part of the endpoints that may be ejected at a time, rounded down. Default 0.5, range 0 to 1; the last endpoint
    /// in service is never ejected.
    pub max_ejected_ratio: f64,
}

impl OutlierConfig {
    /// Sets the failures in a row that eject an endpoint.
    #[must_use]
    pub const fn with_consecutive_failures(mut self, consecutive_failures: NonZeroU32) -> Self {
        self.consecutive_failures = consecutive_failures;
        self
    }

    /// Sets the length of the first ejection.
    #[must_use]
    pub const fn with_ejection(mut self, ejection: Duration) -> Self {
        self.ejection = ejection;
        self
    }

    /// Sets the bound on the length of an ejection.
    #[must_use]
    pub const fn with_max_ejection(mut self, max_ejection: Duration) -> Self {
        self.max_ejection = max_ejection;
        self
    }

    /// Sets the time in service after which one earlier ejection is forgiven.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the part of the endpoints that may be ejected at a time.
    #[must_use]
    pub const fn with_max_ejected_ratio(mut self, max_ejected_ratio: f64) -> Self {
        self.max_ejected_ratio = max_ejected_ratio;
        self
    }
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: DEFAULT_CONSECUTIVE_FAILURES,
            ejection: DEFAULT_EJECTION,
            max_ejection: DEFAULT_MAX_EJECTION,
            interval: DEFAULT_INTERVAL,
            max_ejected_ratio: DEFAULT_MAX_EJECTED_RATIO,
        }
    }
}

/// Watches the endpoints of one service.
#[derive(Debug)]
pub struct Outliers {
    config: OutlierConfig,
    /// Held while deciding about an ejection, so that two at a time can't exceed the share together.
    deciding: Mutex<()>,
}

impl Outliers {
    /// Creates a detector.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`OutlierConfig`] for their ranges.
    pub fn new(config: OutlierConfig) -> Result<Self, ConfigError> {
        ConfigError::check_duration("ejection", config.ejection)?;
        ConfigError::check_duration("interval", config.interval)?;
        ConfigError::check_range("max_ejected_ratio", config.max_ejected_ratio, 0.0, 1.0)?;
        Ok(Self {
            config,
            deciding: Mutex::new(()),
        })
    }

    /// Takes in how a call to `endpoints[index]` went, and returns for how long that ejected the endpoint, if it did.
    pub fn record<E: Endpoint>(
        &self,
        endpoints: &[E],
        index: usize,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Duration> {
        let state = endpoints.get(index)?.state();
        match outcome {
            Outcome::Success => {
                state.succeeded(now);
                None
            }
            Outcome::Failure => {
                let is_outlier = state.failed(now) >= self.config.consecutive_failures.get();
                if is_outlier {
                    self.eject(endpoints, index, now)
                } else {
                    None
                }
            }
            Outcome::CallerError | Outcome::Unknown => None,
        }
    }

    /// Ejects an endpoint at once, however many are ejected: for what no further call can put right, such as a peer that
    /// proved to be somebody else. Returns for how long, unless it is ejected already.
    pub fn eject_at_once(&self, endpoint: &EndpointState, now: Instant) -> Option<Duration> {
        let _deciding = self.deciding.lock();
        if endpoint.is_ejected(now) {
            return None;
        }
        let config = &self.config;
        Some(endpoint.eject(config.ejection, config.max_ejection, config.interval, now))
    }

    /// Ejects an endpoint unless that leaves too few.
    fn eject<E: Endpoint>(&self, endpoints: &[E], index: usize, now: Instant) -> Option<Duration> {
        let _deciding = self.deciding.lock();
        let state = endpoints.get(index)?.state();
        if state.is_ejected(now) {
            return None;
        }
        let ejected = endpoints
            .iter()
            .filter(|endpoint| endpoint.state().is_ejected(now))
            .count();
        let is_last = ejected + 1 >= endpoints.len();
        if is_last || count(ejected + 1) > count(endpoints.len()) * self.config.max_ejected_ratio {
            return None;
        }
        let config = &self.config;
        Some(state.eject(config.ejection, config.max_ejection, config.interval, now))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a service has far fewer than 2^53 endpoints"
)]
const fn count(endpoints: usize) -> f64 {
    endpoints as f64
}

const DEFAULT_CONSECUTIVE_FAILURES: NonZeroU32 = NonZeroU32::new(5).unwrap();
const DEFAULT_EJECTION: Duration = Duration::from_secs(30);
/// Envoy's `max_ejection_time`.
const DEFAULT_MAX_EJECTION: Duration = Duration::from_mins(5);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_MAX_EJECTED_RATIO: f64 = 0.5;
