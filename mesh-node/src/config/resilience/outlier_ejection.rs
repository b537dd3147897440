//! When an endpoint that fails gets no calls for a while, with the defaults of DESIGN section 7.

use std::num::NonZeroU32;
use std::time::Duration;

use mesh_resilience::balance::FailureRate;
use mesh_resilience::balance::OutlierConfig;
use mesh_resilience::balance::SuccessRate;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// When an endpoint that fails gets no calls for a while.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierEjectionConfig {
    /// Failures of any kind in a row that eject an endpoint; 0 for never. Default 5.
    pub consecutive_5xx: u32,
    /// Failures in a row that say nothing of the application (no connection, no answer in time, 502, 503, 504,
    /// `UNAVAILABLE` of gRPC) that do; 0 for never. Default 5.
    pub consecutive_gateway_errors: u32,
    /// Time in service after which one earlier ejection is forgiven, and between two looks at the rates. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// Length of the first ejection; the second in short order takes twice that, and so on. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub base: Duration,
    /// The longest ejection. Default `5m`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub max: Duration,
    /// How many percent of a service's usable endpoints may be ejected at a time, 0 to 100; 0 for none. The last one that
    /// works never is. Default 50.
    #[schemars(range(min = 0, max = 100))]
    pub max_percent: u8,
    /// Ejects endpoints that succeed much less often than the others. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OutlierSuccessRateConfig")]
    pub success_rate: Option<OutlierSuccessRateConfig>,
    /// Ejects endpoints that fail more often than a fixed part of their calls. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OutlierFailureRateConfig")]
    pub failure_rate: Option<OutlierFailureRateConfig>,
}

impl OutlierEjectionConfig {
    /// What the detector is made with.
    pub(crate) fn outliers(&self) -> OutlierConfig {
        let mut config = OutlierConfig::default()
            .with_consecutive_failures(NonZeroU32::new(self.consecutive_5xx))
            .with_consecutive_gateway_failures(NonZeroU32::new(self.consecutive_gateway_errors))
            .with_interval(self.interval)
            .with_ejection(self.base)
            .with_max_ejection(self.max)
            .with_max_ejected_ratio(f64::from(self.max_percent) / 100.0);
        if let Some(rate) = &self.success_rate {
            let rate = SuccessRate::default()
                .with_deviations(rate.deviations)
                .with_min_endpoints(rate.min_endpoints)
                .with_min_calls(rate.min_calls);
            config = config.with_success_rate(rate);
        }
        if let Some(rate) = &self.failure_rate {
            let rate = FailureRate::default()
                .with_ratio(rate.ratio)
                .with_min_endpoints(rate.min_endpoints)
                .with_min_calls(rate.min_calls);
            config = config.with_failure_rate(rate);
        }
        config
    }
}

impl Default for OutlierEjectionConfig {
    fn default() -> Self {
        Self {
            consecutive_5xx: IN_A_ROW,
            consecutive_gateway_errors: IN_A_ROW,
            interval: INTERVAL,
            base: BASE,
            max: MAX,
            max_percent: MAX_PERCENT,
            success_rate: None,
            failure_rate: None,
        }
    }
}

/// Ejects endpoints whose part of successful calls in an interval is far below the mean of all.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierSuccessRateConfig {
    /// How far below the mean is too far, in standard deviations. Default 1.9.
    pub deviations: f64,
    /// Fewer endpoints than this are not compared. Default 5.
    pub min_endpoints: u32,
    /// Endpoints with fewer calls in the interval are not judged. Default 100.
    pub min_calls: u32,
}

impl Default for OutlierSuccessRateConfig {
    fn default() -> Self {
        Self {
            deviations: 1.9,
            min_endpoints: 5,
            min_calls: 100,
        }
    }
}

/// Ejects endpoints that fail more often than a fixed part of their calls in an interval.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierFailureRateConfig {
    /// The part of failed calls that is too much, 0 to 1. Default 0.85.
    #[serde(deserialize_with = "value::ratio")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// Where fewer endpoints than this have calls enough, none is judged. Default 5.
    pub min_endpoints: u32,
    /// Endpoints with fewer calls in the interval are not judged. Default 50.
    pub min_calls: u32,
}

impl Default for OutlierFailureRateConfig {
    fn default() -> Self {
        Self {
            ratio: 0.85,
            min_endpoints: 5,
            min_calls: 50,
        }
    }
}

const IN_A_ROW: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(30);
const BASE: Duration = Duration::from_secs(30);
/// Envoy's.
const MAX: Duration = Duration::from_mins(5);
const MAX_PERCENT: u8 = 50;
