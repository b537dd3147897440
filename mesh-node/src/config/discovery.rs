//! Where services are.

mod register;
mod registry;
mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;

pub use self::register::RegisterCheck;
pub use self::register::RegisterConfig;
pub use self::registry::ConsulSourceConfig;
pub use self::registry::DnsSourceConfig;
pub use self::registry::EtcdSourceConfig;
pub use self::source::EndpointConfig;
pub use self::source::SourceConfig;
pub use self::source::StaticConfig;
use super::health_check::HealthCheckConfig;

/// Where services are.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// Sources, in order. Default none.
    pub sources: Vec<SourceConfig>,
    /// SPIFFE ids that services must prove, by service. It is here and not in a registry that it stands who somebody is.
    /// Default `spiffe://<identity.trust_domain>/<service>` for each.
    #[serde(deserialize_with = "value::spiffe_ids_by_service")]
    pub identities: BTreeMap<String, String>,
    /// How several sources become one: `first` that knows the service, or `merge` for all endpoints together. Default
    /// `first`.
    pub combine: Combine,
    /// With `first`: how long a source that gives no answer keeps its last list in use before the next one takes over; it
    /// comes back as soon as it answers. Default `10s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub failover_after: Duration,
    /// What is believed when endpoints disappear.
    pub withdrawal: WithdrawalConfig,
    /// Active checks of the endpoints that are called.
    pub health_check: HealthCheckConfig,
    /// This node's own entry in registries. Absent: it registers nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RegisterConfig")]
    pub register: Option<RegisterConfig>,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            identities: BTreeMap::new(),
            combine: Combine::First,
            failover_after: FAILOVER_AFTER,
            withdrawal: WithdrawalConfig::default(),
            health_check: HealthCheckConfig::default(),
            register: None,
        }
    }
}

/// How several sources become one.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The first that knows the service.
    #[default]
    First,
    /// All endpoints of all.
    Merge,
}

/// What is believed when endpoints disappear from a registry.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WithdrawalConfig {
    /// Share of a service's endpoints, 0 to 1, that may disappear within `grace` and be believed at once; the last one never
    /// is. Default 0.5.
    #[serde(deserialize_with = "value::ratio")]
    pub share: f64,
    /// How long more than that must stay away to be believed, unless checks say sooner that an endpoint does not work.
    /// Default `60s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub grace: Duration,
}

impl Default for WithdrawalConfig {
    fn default() -> Self {
        Self {
            share: SHARE,
            grace: GRACE,
        }
    }
}

impl DiscoveryConfig {
    /// The endpoints of all static lists, in their order.
    pub fn static_endpoints(&self) -> impl Iterator<Item = &EndpointConfig> {
        self.sources.iter().flat_map(|source| match source {
            SourceConfig::Static(list) => &list.services[..],
            _ => &[],
        })
    }

    /// The endpoints of each static list.
    pub(super) fn static_lists(&mut self) -> impl Iterator<Item = &mut Vec<EndpointConfig>> {
        self.sources.iter_mut().filter_map(|source| match source {
            SourceConfig::Static(list) => Some(&mut list.services),
            _ => None,
        })
    }
}

/// Longer than a restart of an agent takes.
const FAILOVER_AFTER: Duration = Duration::from_secs(10);
/// Rolling restarts and scaling take away less at a time.
const SHARE: f64 = 0.5;
/// RELIABILITY D-2.
const GRACE: Duration = Duration::from_mins(1);
