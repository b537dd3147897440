//! Which endpoint of a service gets a call.

use std::time::Duration;

use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::Policy;
use mesh_resilience::balance::SlowStart;
use mesh_resilience::balance::ZoneAware;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// Which endpoint of a service gets a call.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadBalancingConfig {
    /// How one of the endpoints is chosen. Default `least_request`.
    pub policy: BalancingPolicy,
    /// What calls are told apart by; required with `ring_hash` and `maglev`, and of no use with others. A call that does
    /// not have it goes anywhere. Absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HashOnConfig")]
    pub hash_on: Option<HashOnConfig>,
    /// Prefers endpoints in the zone of this node, where `service.zone` says which that is.
    pub zone_aware: ZoneAwareConfig,
    /// Gives new endpoints, and those that were ejected, their share little by little; not with `ring_hash` and `maglev`.
    /// Absent: all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SlowStartConfig")]
    pub slow_start: Option<SlowStartConfig>,
    /// Where too few endpoints work, and of one priority a smaller part than this, its calls go to all of its endpoints,
    /// whatever checks and failures say, 0 to 1. Default 0: only where none is usable at all.
    #[serde(deserialize_with = "value::ratio")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub panic_threshold: f64,
}

impl LoadBalancingConfig {
    /// What the balancer is made with, for a node in `zone`.
    pub(crate) fn balance(&self, zone: Option<&str>) -> BalanceConfig {
        let mut config = BalanceConfig::default()
            .with_policy(self.policy.into())
            .with_panic_threshold(self.panic_threshold);
        if let Some(zone) = zone.filter(|_| self.zone_aware.enabled) {
            config =
                config.with_zone_aware(ZoneAware::new(zone).with_factor(self.zone_aware.factor));
        }
        if let Some(slow) = &self.slow_start {
            let slow = SlowStart::default()
                .with_window(slow.window)
                .with_aggression(slow.aggression)
                .with_min_share(slow.min_share);
            config = config.with_slow_start(slow);
        }
        config
    }
}

/// How one of the endpoints is chosen.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BalancingPolicy {
    /// The less loaded of two drawn at random by weight.
    #[default]
    LeastRequest,
    /// The one of two drawn at random by weight that is expected to answer sooner, by recent latency and calls in flight.
    PeakEwma,
    /// One after the other, each as often as its weight says.
    RoundRobin,
    /// At random by weight.
    Random,
    /// The same endpoint for the same `hash_on`, on a ring; moves the fewest calls when endpoints come and go.
    RingHash,
    /// The same endpoint for the same `hash_on`, by a table; spreads calls most evenly.
    Maglev,
}

impl From<BalancingPolicy> for Policy {
    fn from(policy: BalancingPolicy) -> Self {
        match policy {
            BalancingPolicy::LeastRequest => Self::LeastRequest,
            BalancingPolicy::PeakEwma => Self::PeakEwma,
            BalancingPolicy::RoundRobin => Self::RoundRobin,
            BalancingPolicy::Random => Self::Random,
            BalancingPolicy::RingHash => Self::RingHash,
            BalancingPolicy::Maglev => Self::Maglev,
        }
    }
}

/// What calls are told apart by: exactly one of these.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashOnConfig {
    /// The value of this header field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub header: Option<String>,
    /// The value of this cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cookie: Option<String>,
    /// The service that calls: all calls of this service, from all of its instances, go to one endpoint. Default `false`.
    pub caller: bool,
}

/// Prefers endpoints in the zone of this node.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZoneAwareConfig {
    /// Whether they are preferred. Default `true`.
    pub enabled: bool,
    /// How much busier than the average of all zones an endpoint of this zone may get before others help. Default 1.4.
    pub factor: f64,
}

impl Default for ZoneAwareConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            factor: ZONE_FACTOR,
        }
    }
}

/// Gives endpoints their share little by little.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlowStartConfig {
    /// How long it takes. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub window: Duration,
    /// The form of the ramp: 1 is a straight line, more is faster at first. Default 1.
    pub aggression: f64,
    /// The part of its weight that an endpoint has at least, 0 to 1. Default 0.1.
    #[serde(deserialize_with = "value::ratio")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_share: f64,
}

impl Default for SlowStartConfig {
    fn default() -> Self {
        Self {
            window: SLOW_START,
            aggression: 1.0,
            min_share: 0.1,
        }
    }
}

/// As between priorities.
const ZONE_FACTOR: f64 = 1.4;
const SLOW_START: Duration = Duration::from_secs(30);
