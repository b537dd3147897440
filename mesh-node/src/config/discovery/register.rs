//! This node's own entry in registries.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// This node's own entry in registries: made once it is ready, kept while it runs, and taken away before it stops.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegisterConfig {
    /// Names of the sources to register in. Default every one of `discovery.sources` that can be written to: those of the
    /// modes `consul` and `etcd`.
    #[serde(rename = "in")]
    pub sources: Vec<String>,
    /// Address or DNS name at which other nodes reach this one. Default that of `service.listen`; required where that is
    /// `0.0.0.0` or `[::]`.
    #[serde(
        deserialize_with = "value::some_host",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub host: Option<String>,
    /// Port at which other nodes reach this one. Default that of `service.listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16")]
    pub port: Option<NonZeroU16>,
    /// Id of this instance: unique in the registry, and the same after a restart. Default `<service.id>-<host>-<port>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub id: Option<String>,
    /// How a registry learns that this node lives: `ttl`, by signs of life; or, in Consul, the agent asks: `tcp` connects,
    /// `http` and `grpc` ask for health. Default `ttl`.
    pub check: RegisterCheck,
    /// What the agent asks with `check: http`, a URL, or `grpc`, `host:port` or `host:port/package.Service`. Default with
    /// `http` the page `/health/ready` of `admin.listen`, with `grpc` the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub check_target: Option<String>,
    /// How long a sign of life counts; in etcd the time to live of the lease. Default `15s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub ttl: Duration,
    /// How often Consul's agent asks, with another check than `ttl`. Default `10s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// When Consul removes an instance that gives no sign of life any more; at least `1m`. Default `10m`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub deregister_after: Duration,
    /// Share of the calls that this instance wants, beside the weights of others. Default 1.
    pub weight: NonZeroU16,
    /// Zone that it is in. Default `service.zone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub zone: Option<String>,
    /// Version of the service. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub version: Option<String>,
    /// Free labels. Default none.
    pub tags: Vec<String>,
    /// Free pairs of texts. Default none.
    pub meta: BTreeMap<String, String>,
}

impl Default for RegisterConfig {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            host: None,
            port: None,
            id: None,
            check: RegisterCheck::Ttl,
            check_target: None,
            ttl: TTL,
            interval: INTERVAL,
            deregister_after: DEREGISTER_AFTER,
            weight: NonZeroU16::MIN,
            zone: None,
            version: None,
            tags: Vec::new(),
            meta: BTreeMap::new(),
        }
    }
}

/// How a registry learns that this node lives.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisterCheck {
    /// The node gives signs of life.
    #[default]
    Ttl,
    /// The registry's agent connects.
    Tcp,
    /// The agent asks for a page.
    Http,
    /// The agent asks by gRPC's health protocol.
    Grpc,
}

/// Three signs of life in the time that one counts, as Consul's users do.
const TTL: Duration = Duration::from_secs(15);
/// FIELD, system A.
const INTERVAL: Duration = Duration::from_secs(10);
/// Long enough for a machine to come back, short enough not to leave the list full of what is gone.
const DEREGISTER_AFTER: Duration = Duration::from_mins(10);
