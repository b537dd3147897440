//! When to stop calling a service that fails, with the defaults of DESIGN section 7.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// When to stop calling a service that fails.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreakerConfig {
    /// Consecutive failures that open the circuit. Default 5.
    pub threshold: NonZeroU32,
    /// How long it stays open before it lets probes through. Default `60s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Probes at a time while half open; as many successes close it. Default 3.
    pub half_open_requests: NonZeroU32,
    /// Opens it also when too few of the recent calls succeed. Absent: only failures in a row count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRateConfig>,
    /// Opens it also when too many of the recent calls are slow. Absent: slow calls do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<SlowCallsConfig>,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            threshold: value::nonzero(BREAKER_THRESHOLD),
            timeout: BREAKER_TIMEOUT,
            half_open_requests: value::nonzero(BREAKER_PROBES),
            success_rate: None,
            slow_calls: None,
        }
    }
}

/// When too few calls succeed.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuccessRateConfig {
    /// Share of the calls that must succeed, 0 to 1. Default 0.5.
    #[serde(deserialize_with = "value::ratio")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_ratio: f64,
    /// How far back calls are counted. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub window: Duration,
    /// Calls within the window below which nothing is judged. Default 20.
    pub min_volume: NonZeroU32,
}

impl Default for SuccessRateConfig {
    fn default() -> Self {
        Self {
            min_ratio: MIN_SUCCESS_RATIO,
            window: RATE_WINDOW,
            min_volume: value::nonzero(RATE_VOLUME),
        }
    }
}

/// When too many calls are slow. A slow answer in time is no failure, but opens a half-open circuit again.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlowCallsConfig {
    /// How long a call takes that is not slow yet. Default `10s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub longer_than: Duration,
    /// Share of the calls that opens the circuit when it is slow, 0.001 to 1. Default 0.5.
    #[serde(deserialize_with = "value::some_share")]
    #[schemars(range(min = 0.001, max = 1.0))]
    pub max_ratio: f64,
    /// How far back calls are counted. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub window: Duration,
    /// Calls within the window below which nothing is judged. Default 20.
    pub min_volume: NonZeroU32,
}

impl Default for SlowCallsConfig {
    fn default() -> Self {
        Self {
            longer_than: SLOW,
            max_ratio: MAX_SLOW_RATIO,
            window: RATE_WINDOW,
            min_volume: value::nonzero(RATE_VOLUME),
        }
    }
}

const BREAKER_THRESHOLD: u32 = 5;
const BREAKER_TIMEOUT: Duration = Duration::from_mins(1);
const BREAKER_PROBES: u32 = 3;
const MIN_SUCCESS_RATIO: f64 = 0.5;
/// A third of the time that a call has.
const SLOW: Duration = Duration::from_secs(10);
const MAX_SLOW_RATIO: f64 = 0.5;
const RATE_WINDOW: Duration = Duration::from_secs(30);
const RATE_VOLUME: u32 = 20;
