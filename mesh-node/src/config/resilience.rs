//! What keeps calls alive, with the defaults of DESIGN section 7.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;
use super::window::RateLimitConfig;

/// What keeps calls alive when something breaks.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResilienceConfig {
    /// When to stop calling a service that fails.
    pub circuit_breaker: CircuitBreakerConfig,
    /// Requests that one caller may make: one window, or a list of windows that all hold at once. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateLimitConfig")]
    pub rate_limit: Option<RateLimitConfig>,
    /// When to try a failed call again.
    pub retry: RetryConfig,
    /// How long one call may take, all attempts together. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// How many calls run at once.
    pub bulkhead: BulkheadConfig,
}

impl Default for ResilienceConfig {
    fn default() -> Self {
        Self {
            circuit_breaker: CircuitBreakerConfig::default(),
            rate_limit: None,
            retry: RetryConfig::default(),
            timeout: REQUEST_TIMEOUT,
            bulkhead: BulkheadConfig::default(),
        }
    }
}

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
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            threshold: value::nonzero(BREAKER_THRESHOLD),
            timeout: BREAKER_TIMEOUT,
            half_open_requests: value::nonzero(BREAKER_PROBES),
        }
    }
}

/// When to try a failed call again.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts in all, the first included; 1 never retries. Default 3.
    pub max_attempts: NonZeroU32,
    /// How the wait grows: `exponential` (doubles) or `fixed`. Default `exponential`.
    pub backoff: Backoff,
    /// Wait before the second attempt, before jitter. Default `1s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub initial_delay: Duration,
    /// Longest wait between two attempts. Default `10s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub max_delay: Duration,
    /// Retries allowed as a share of the calls, 0 to 1, so that retries cannot multiply an outage. Default 0.2.
    #[serde(deserialize_with = "value::ratio")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub budget: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: value::nonzero(RETRY_ATTEMPTS),
            backoff: Backoff::default(),
            initial_delay: RETRY_DELAY,
            max_delay: RETRY_MAX_DELAY,
            budget: RETRY_BUDGET,
        }
    }
}

/// How the wait between attempts grows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Doubles each time.
    #[default]
    Exponential,
    /// Stays the same.
    Fixed,
}

/// How many calls run at once.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkheadConfig {
    /// Calls to one service at the same time. Default 100.
    pub max_concurrent: NonZeroU32,
    /// Calls that may wait for a place; more are refused at once. Default 50.
    pub max_waiting: u32,
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        Self {
            max_concurrent: value::nonzero(BULKHEAD_CONCURRENT),
            max_waiting: BULKHEAD_WAITING,
        }
    }
}

// All of DESIGN section 7, except where a comment says otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const BREAKER_THRESHOLD: u32 = 5;
const BREAKER_TIMEOUT: Duration = Duration::from_mins(1);
const BREAKER_PROBES: u32 = 3;
const RETRY_ATTEMPTS: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// A third of the request timeout: a longer wait would leave no time for the attempt behind it.
const RETRY_MAX_DELAY: Duration = Duration::from_secs(10);
const RETRY_BUDGET: f64 = 0.2;
const BULKHEAD_CONCURRENT: u32 = 100;
const BULKHEAD_WAITING: u32 = 50;
