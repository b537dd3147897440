//! What keeps calls alive, with the defaults of DESIGN section 7.

mod breaker;
mod bulkhead;
mod hedge;
mod load_balancing;
mod load_shedding;
mod outlier_ejection;
mod rate_limit;
mod retry;
mod safe_writes;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

pub use self::breaker::CircuitBreakerConfig;
pub use self::breaker::SlowCallsConfig;
pub use self::breaker::SuccessRateConfig;
pub use self::bulkhead::BulkheadConfig;
pub use self::hedge::HedgeConfig;
pub use self::load_balancing::BalancingPolicy;
pub use self::load_balancing::HashOnConfig;
pub use self::load_balancing::LoadBalancingConfig;
pub use self::load_balancing::SlowStartConfig;
pub use self::load_balancing::ZoneAwareConfig;
pub use self::load_shedding::LoadSheddingConfig;
pub use self::outlier_ejection::OutlierEjectionConfig;
pub use self::outlier_ejection::OutlierFailureRateConfig;
pub use self::outlier_ejection::OutlierSuccessRateConfig;
pub use self::rate_limit::CallerLimitConfig;
pub use self::rate_limit::DescriptorEntry;
pub use self::rate_limit::EntrySource;
pub use self::rate_limit::RateBucket;
pub use self::rate_limit::RateLimitConfig;
pub use self::rate_limit::RateLimitStoreConfig;
pub use self::rate_limit::RateWindow;
pub use self::rate_limit::RedisStoreConfig;
pub use self::rate_limit::RlsStoreConfig;
pub use self::rate_limit::RlsWhenAway;
pub use self::rate_limit::WhenAway;
pub use self::retry::Backoff;
pub use self::retry::RetryConfig;
pub use self::safe_writes::SafeWritesConfig;

use super::value;

/// What keeps calls alive when something breaks.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResilienceConfig {
    /// When to stop calling a service that fails.
    pub circuit_breaker: CircuitBreakerConfig,
    /// Requests that one caller may make: one window, a list of windows that all hold at once, or these with a token bucket
    /// and a store that nodes share. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CallerLimitConfig")]
    pub rate_limit: Option<CallerLimitConfig>,
    /// When to try a failed call again.
    pub retry: RetryConfig,
    /// When to send a slow call a second time. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HedgeConfig")]
    pub hedge: Option<HedgeConfig>,
    /// Calls that are not safe to repeat, made so.
    pub safe_writes: SafeWritesConfig,
    /// How long one call may take, all attempts together. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// How many calls run at once.
    pub bulkhead: BulkheadConfig,
    /// Which endpoint of a service gets a call.
    pub load_balancing: LoadBalancingConfig,
    /// When an endpoint that fails gets no calls for a while.
    pub outlier_ejection: OutlierEjectionConfig,
    /// When to refuse calls to this node's application because it has too many.
    pub load_shedding: LoadSheddingConfig,
}

impl Default for ResilienceConfig {
    fn default() -> Self {
        Self {
            circuit_breaker: CircuitBreakerConfig::default(),
            rate_limit: None,
            retry: RetryConfig::default(),
            hedge: None,
            safe_writes: SafeWritesConfig::default(),
            timeout: REQUEST_TIMEOUT,
            bulkhead: BulkheadConfig::default(),
            load_balancing: LoadBalancingConfig::default(),
            outlier_ejection: OutlierEjectionConfig::default(),
            load_shedding: LoadSheddingConfig::default(),
        }
    }
}

/// As DESIGN section 7 says.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
