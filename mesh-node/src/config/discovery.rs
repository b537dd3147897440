//! Where services are.

use std::num::NonZeroU16;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;

/// Where services are.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// Sources, asked in this order; the first that knows a service answers. Default none.
    pub sources: Vec<SourceConfig>,
}

/// One source of endpoints.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Kind of source: `static`. Required.
    pub mode: DiscoveryMode,
    /// The endpoints; several with one `id` are several endpoints of that service. Default none.
    #[serde(default)]
    pub services: Vec<EndpointConfig>,
}

impl SourceConfig {
    /// A static list.
    pub fn fixed(services: Vec<EndpointConfig>) -> Self {
        Self {
            mode: DiscoveryMode::Static,
            services,
        }
    }
}

/// Kind of source.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscoveryMode {
    /// A list in this file.
    Static,
}

/// One endpoint of a service.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Name of the service. Required.
    #[serde(deserialize_with = "value::service_name")]
    pub id: String,
    /// Address or DNS name of its node. Required.
    #[serde(deserialize_with = "value::host")]
    pub host: String,
    /// Port of its node. Required.
    pub port: NonZeroU16,
    /// SPIFFE id that the node must prove. Default `spiffe://<identity.trust_domain>/<id>`.
    #[serde(
        default,
        deserialize_with = "value::some_spiffe_id",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub spiffe_id: Option<String>,
    /// Share of the calls, beside the other endpoints' weights. Default 1.
    #[serde(default = "default_weight")]
    pub weight: NonZeroU32,
    /// Pinned fingerprint of the node's RSA identity key, as `mesh-node keys list` prints it. Absent: the key must be
    /// signed by the node's certificate.
    #[serde(
        default,
        deserialize_with = "value::some_fingerprint",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub public_key_fingerprint: Option<String>,
    /// Zone that the endpoint is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub zone: Option<String>,
    /// Free labels. Default none.
    #[serde(default)]
    pub tags: Vec<String>,
}

impl EndpointConfig {
    /// An endpoint of the service `id`, all else default.
    pub fn new(id: &str, host: &str, port: NonZeroU16) -> Self {
        Self {
            id: id.to_owned(),
            host: host.to_owned(),
            port,
            spiffe_id: None,
            weight: default_weight(),
            public_key_fingerprint: None,
            zone: None,
            tags: Vec::new(),
        }
    }
}

fn default_weight() -> NonZeroU32 {
    NonZeroU32::MIN
}
