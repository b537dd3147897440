//! Routes: what this node's application calls, and how each call is carried.

mod edit;
mod fallback;
mod matching;
mod percent;
mod target;
mod traffic;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

pub use self::edit::HeaderEditsConfig;
pub use self::edit::RedirectConfig;
pub use self::edit::RewriteConfig;
pub use self::fallback::FallbackConfig;
pub use self::fallback::FixedAnswerConfig;
pub use self::fallback::StaleAnswerConfig;
pub use self::matching::FieldMatchConfig;
pub use self::matching::RouteMatchConfig;
pub use self::percent::Percent;
pub use self::target::RouteTargetConfig;
pub use self::target::StickyConfig;
pub use self::target::StickyCookieConfig;
pub use self::target::SubsetConfig;
pub use self::traffic::AbortConfig;
pub use self::traffic::DelayConfig;
pub use self::traffic::FaultConfig;
pub use self::traffic::MirrorConfig;

use super::resilience::BulkheadConfig;
use super::resilience::CircuitBreakerConfig;
use super::resilience::HedgeConfig;
use super::resilience::RateLimitConfig;
use super::resilience::RetryConfig;
use super::value;

/// One route. The first that matches a call takes it; a call that none matches goes to the service that it names.
///
/// A section of `resilience` that stands here too replaces the whole section for the calls of this route.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Name, unique; metrics, logs and `explain` say it. Required.
    pub name: String,
    /// What a call must be. All that is given must hold; left out, every call is.
    #[serde(default)]
    pub r#match: RouteMatchConfig,
    /// Where its calls go, split by weight. Default: to the service that was called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<RouteTargetConfig>,
    /// Keeps one caller at one of several targets. Absent: each call is split anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StickyConfig")]
    pub sticky: Option<StickyConfig>,
    /// Where copies of its calls go, whose answers are dropped. Absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MirrorConfig")]
    pub mirror: Option<MirrorConfig>,
    /// Faults that are made on purpose. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FaultConfig")]
    pub fault: Option<FaultConfig>,
    /// Changes path or host before the call is sent. Absent: neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RewriteConfig")]
    pub rewrite: Option<RewriteConfig>,
    /// Answers with a redirect; nothing is sent. Absent: the call is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RedirectConfig")]
    pub redirect: Option<RedirectConfig>,
    /// Changes header fields of requests. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HeaderEditsConfig")]
    pub request_headers: Option<HeaderEditsConfig>,
    /// Changes header fields of answers. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HeaderEditsConfig")]
    pub response_headers: Option<HeaderEditsConfig>,
    /// How long one call may take, all attempts together. Default: `resilience.timeout`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "value::optional_duration"
    )]
    #[schemars(with = "String")]
    pub timeout: Option<Duration>,
    /// When to try a failed call again. Default: `resilience.retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RetryConfig")]
    pub retry: Option<RetryConfig>,
    /// When to send a slow call a second time. Default: `resilience.hedge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HedgeConfig")]
    pub hedge: Option<HedgeConfig>,
    /// When to stop making calls of this route that fail, in a breaker of its own. Default: that of
    /// `resilience.circuit_breaker`, which all calls to the service share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CircuitBreakerConfig")]
    pub circuit_breaker: Option<CircuitBreakerConfig>,
    /// How many calls of this route run at once. Default: those of `resilience.bulkhead`, for all calls to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BulkheadConfig")]
    pub bulkhead: Option<BulkheadConfig>,
    /// How many calls of this route the application may make: one window, or a list of them. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateLimitConfig")]
    pub rate_limit: Option<RateLimitConfig>,
    /// What callers get where the service gave no good answer. Absent: the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FallbackConfig")]
    pub fallback: Option<FallbackConfig>,
}
