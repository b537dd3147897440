//! When to send a slow call a second time.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// When to send a slow call a second time, to another endpoint where there is one; the first answer counts and the other
/// call is broken off. Only calls without a body whose method may be repeated (GET, HEAD, OPTIONS, PUT, DELETE).
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeConfig {
    /// The share of the recent calls that must have been faster, 0.5 to 0.999. Default 0.95.
    #[serde(deserialize_with = "value::ratio")]
    #[schemars(range(min = 0.5, max = 0.999))]
    pub quantile: f64,
    /// It is never sent earlier, unless the first has failed. Default `1ms`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub min_delay: Duration,
    /// It never waits longer; so long it waits while too few calls are known, too. Equal to `min_delay`: a fixed delay.
    /// Default `1s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub max_delay: Duration,
    /// Second calls allowed as a share of the calls, 0 to 1; they count as retries too. Default 0.05.
    #[serde(deserialize_with = "value::ratio")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub budget: f64,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            quantile: HEDGE_QUANTILE,
            min_delay: HEDGE_MIN_DELAY,
            max_delay: HEDGE_MAX_DELAY,
            budget: HEDGE_BUDGET,
        }
    }
}

/// As Dean and Barroso, "The Tail at Scale" (2013).
const HEDGE_QUANTILE: f64 = 0.95;
const HEDGE_MIN_DELAY: Duration = Duration::from_millis(1);
const HEDGE_MAX_DELAY: Duration = Duration::from_secs(1);
const HEDGE_BUDGET: f64 = 0.05;
