//! When to try a failed call again, with the defaults of DESIGN section 7.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

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
    /// How long one attempt may take. Absent: as long as all of them together, `timeout`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "value::optional_duration"
    )]
    #[schemars(with = "Option<String>")]
    pub per_try_timeout: Option<Duration>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: value::nonzero(RETRY_ATTEMPTS),
            backoff: Backoff::default(),
            initial_delay: RETRY_DELAY,
            max_delay: RETRY_MAX_DELAY,
            budget: RETRY_BUDGET,
            per_try_timeout: None,
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

const RETRY_ATTEMPTS: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// A third of the request timeout: a longer wait would leave no time for the attempt behind it.
const RETRY_MAX_DELAY: Duration = Duration::from_secs(10);
const RETRY_BUDGET: f64 = 0.2;
