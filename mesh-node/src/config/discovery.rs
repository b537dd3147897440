//! Where services are.

pub(crate) mod doubts;
mod register;
mod registry;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;
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
pub use self::registry::FileSourceConfig;
pub use self::registry::XdsSourceConfig;
pub use self::registry::XdsVariant;
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
    /// The last good lists of registries on disk, for a start while a registry is away.
    pub cache: CacheConfig,
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
            cache: CacheConfig::default(),
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

/// The last good lists of registries on disk.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Whether lists are kept. Default true; without a source that asks a registry nothing is written.
    pub enabled: bool,
    /// The file. Who can write to it can say where services are, never who. Default `state/discovery.cache`.
    #[schemars(with = "String")]
    pub path: PathBuf,
    /// How old a list may be that is used: since its registry last stood by it. Default `7days`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub max_age: Duration,
    /// When the node is ready: `serve`, at once, with what is on disk, or `wait`, once each service that this file names
    /// has its first answer from a registry. Default `serve`.
    pub on_start: OnStart,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            path: PathBuf::from(CACHE),
            max_age: MAX_AGE,
            on_start: OnStart::Serve,
        }
    }
}

/// When a node is ready whose registries may be away.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStart {
    /// At once, with the lists on disk.
    #[default]
    Serve,
    /// Once registries have answered about the services of the configuration.
    Wait,
}

/// Beside `keys` and `logs`.
const CACHE: &str = "state/discovery.cache";
/// Addresses that are older may be somebody else's by now.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// Longer than a restart of an agent takes.
const FAILOVER_AFTER: Duration = Duration::from_secs(10);
/// Rolling restarts and scaling take away less at a time.
const SHARE: f64 = 0.5;
/// RELIABILITY D-2.
const GRACE: Duration = Duration::from_mins(1);
