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

const BREAKER_THRESHOLD: u32 = 5;
const BREAKER_TIMEOUT: Duration = Duration::from_mins(1);
const BREAKER_PROBES: u32 = 3;
