//! The kinds of sources, each with keys of its own.

use std::num::NonZeroU16;
use std::num::NonZeroU32;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use super::registry::ConsulSourceConfig;
use super::registry::DnsSourceConfig;
use super::registry::EtcdSourceConfig;
use super::registry::FileSourceConfig;
use super::registry::XdsSourceConfig;
use crate::config::value;

/// One source of endpoints; `mode` says which kind, and each kind has keys of its own.
#[non_exhaustive]
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum SourceConfig {
    /// A list in this file.
    Static(StaticConfig),
    /// A file.
    File(FileSourceConfig),
    /// Consul.
    Consul(ConsulSourceConfig),
    /// etcd.
    Etcd(EtcdSourceConfig),
    /// DNS.
    Dns(DnsSourceConfig),
    /// An xDS control plane.
    Xds(XdsSourceConfig),
}

impl SourceConfig {
    /// A static list.
    pub fn fixed(services: Vec<EndpointConfig>) -> Self {
        Self::Static(StaticConfig { services })
    }

    /// The name of a source that asks somebody; a static list has none.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Static(_) => None,
            Self::File(file) => Some(&file.name),
            Self::Consul(consul) => Some(&consul.name),
            Self::Etcd(etcd) => Some(&etcd.name),
            Self::Dns(dns) => Some(&dns.name),
            Self::Xds(xds) => Some(&xds.name),
        }
    }

    /// Whether nodes can register in it.
    pub fn is_writable(&self) -> bool {
        matches!(self, Self::Consul(_) | Self::Etcd(_))
    }

    /// The paths in it.
    pub(in crate::config) fn paths(&mut self) -> Vec<&mut PathBuf> {
        let optional = match self {
            Self::File(file) => return vec![&mut file.path],
            Self::Static(_) | Self::Dns(_) => return Vec::new(),
            Self::Consul(consul) => [
                &mut consul.token_file,
                &mut consul.ca_file,
                &mut consul.cert_file,
                &mut consul.key_file,
            ],
            Self::Etcd(etcd) => [
                &mut etcd.password_file,
                &mut etcd.ca_file,
                &mut etcd.cert_file,
                &mut etcd.key_file,
            ],
            Self::Xds(xds) => [
                &mut xds.token_file,
                &mut xds.ca_file,
                &mut xds.cert_file,
                &mut xds.key_file,
            ],
        };
        optional.into_iter().flatten().collect()
    }
}

/// The shape that the decoder of files knows: it takes the variant's name from the key `mode` (`decode::TAGGED`), so that
/// every error below still knows its place. serde's own internally tagged enums lose it.
#[derive(Deserialize)]
#[serde(
    remote = "SourceConfig",
    rename = "SourceConfig",
    rename_all = "snake_case"
)]
enum Tagged {
    Static(StaticConfig),
    File(FileSourceConfig),
    Consul(ConsulSourceConfig),
    Etcd(EtcdSourceConfig),
    Dns(DnsSourceConfig),
    Xds(XdsSourceConfig),
}

impl<'de> Deserialize<'de> for SourceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tagged::deserialize(deserializer)
    }
}

/// A list in the configuration.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticConfig {
    /// The endpoints; several with one `id` are several endpoints of that service. Default none.
    pub services: Vec<EndpointConfig>,
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
