//! Where services are.

mod source;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

pub use self::source::EndpointConfig;
pub use self::source::SourceConfig;
pub use self::source::StaticConfig;
use super::health_check::HealthCheckConfig;

/// Where services are.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// Sources, asked in this order; the first that knows a service answers. Default none.
    pub sources: Vec<SourceConfig>,
    /// Active checks of the endpoints that are called.
    pub health_check: HealthCheckConfig,
}

impl DiscoveryConfig {
    /// The endpoints of all static lists, in their order.
    pub fn static_endpoints(&self) -> impl Iterator<Item = &EndpointConfig> {
        self.sources.iter().flat_map(|source| match source {
            SourceConfig::Static(list) => &list.services[..],
        })
    }

    /// The endpoints of each static list.
    pub(super) fn static_lists(&mut self) -> impl Iterator<Item = &mut Vec<EndpointConfig>> {
        self.sources.iter_mut().map(|source| match source {
            SourceConfig::Static(list) => &mut list.services,
        })
    }
}
