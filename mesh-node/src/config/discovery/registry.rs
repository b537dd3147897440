//! The sources that ask somebody, each with how it is reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;
use crate::config::value::SecretText;

/// Consul: its agents push what changes, and check health.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConsulSourceConfig {
    /// What the source is called in logs and reports; each source has a name of its own. Default `consul`.
    #[serde(default = "consul")]
    pub name: String,
    /// HTTP API of the agent on this machine, `http://` or `https://`. Default `http://127.0.0.1:8500`.
    #[serde(default = "consul_url")]
    pub url: String,
    /// ACL token. Better is a file.
    #[serde(
        default,
        deserialize_with = "value::some_secret",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub token: Option<SecretText>,
    /// File with the ACL token on one line, for its owner alone to read; read anew for each request. Default no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub token_file: Option<PathBuf>,
    /// PEM roots that its certificate must lead to, read once at the start; the system's are not used. Required with `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_file: Option<PathBuf>,
    /// PEM certificate that we show it, where it asks for one; read once, so a new one needs a new start. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cert_file: Option<PathBuf>,
    /// Key of that certificate, for its owner alone to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_file: Option<PathBuf>,
    /// Name that its certificate must have, such as `server.dc1.consul`. Default the host that is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub server_name: Option<String>,
    /// Datacenter whose services are followed. Default the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub datacenter: Option<String>,
    /// Namespace, in Consul Enterprise. Default that of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub namespace: Option<String>,
    /// Tags that an instance must have, all of them. Default none.
    #[serde(default)]
    pub tags: Vec<String>,
    /// SPIFFE ids that this source may name for any service, whole or all below a path that ends in `/*`. Whoever can write
    /// to it can then lead calls for every service to each of those. Default none: it says where a service is, and the
    /// configuration who it is.
    #[serde(default, deserialize_with = "value::spiffe_patterns")]
    pub may_name_identities: Vec<String>,
}

/// etcd: pushes what changes; instances live as long as their leases.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdSourceConfig {
    /// What the source is called in logs and reports; each source has a name of its own. Default `etcd`.
    #[serde(default = "etcd")]
    pub name: String,
    /// Members, `http://HOST:2379` or `https://HOST:2379`. Required.
    pub endpoints: Vec<String>,
    /// What all keys begin with, up to and with the slash before the service. Default `/mesh/services/`.
    #[serde(default = "etcd_prefix")]
    pub prefix: String,
    /// User, where etcd asks for one. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub username: Option<String>,
    /// Its password. Better is a file.
    #[serde(
        default,
        deserialize_with = "value::some_secret",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub password: Option<SecretText>,
    /// File with the password on one line, for its owner alone to read; read anew whenever etcd asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub password_file: Option<PathBuf>,
    /// PEM roots that its certificate must lead to, read once at the start; the system's are not used. Required with `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_file: Option<PathBuf>,
    /// PEM certificate that we show it, where it asks for one; read once, so a new one needs a new start. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cert_file: Option<PathBuf>,
    /// Key of that certificate, for its owner alone to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_file: Option<PathBuf>,
    /// Name that its certificate must have, such as `server.dc1.consul`. Default the host that is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub server_name: Option<String>,
    /// SPIFFE ids that this source may name for any service, whole or all below a path that ends in `/*`. Whoever can write
    /// to it can then lead calls for every service to each of those. Default none: it says where a service is, and the
    /// configuration who it is.
    #[serde(default, deserialize_with = "value::spiffe_patterns")]
    pub may_name_identities: Vec<String>,
}

/// A file with services, in YAML or JSON, followed as it changes. Whoever may write to it says where services are and, as
/// in this file, who they are.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileSourceConfig {
    /// What the source is called in logs and reports; each source has a name of its own. Default `file`.
    #[serde(default = "file")]
    pub name: String,
    /// The file; its name ends in `.yaml`, `.yml` or `.json`. Required.
    #[schemars(with = "String")]
    pub path: PathBuf,
}

/// An xDS control plane: pushes what changes, over one stream for all services.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct XdsSourceConfig {
    /// What the source is called in logs and reports; each source has a name of its own. Default `xds`.
    #[serde(default = "xds")]
    pub name: String,
    /// Management servers, `http://HOST:PORT` or `https://HOST:PORT`: the first is used until it fails, then the next.
    /// Required.
    pub servers: Vec<String>,
    /// What this node is called there. Default `service.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub node_id: Option<String>,
    /// The cluster that this node says it belongs to. Default `service.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub node_cluster: Option<String>,
    /// The form of the protocol: `sotw`, state of the world, or `delta`. Default `sotw`.
    #[serde(default)]
    pub variant: XdsVariant,
    /// File with a token on one line, for its owner alone to read, shown over `https` only. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub token_file: Option<PathBuf>,
    /// PEM roots that its certificate must lead to, read once at the start; the system's are not used. Required with `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_file: Option<PathBuf>,
    /// PEM certificate that we show it, where it asks for one; read once, so a new one needs a new start. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cert_file: Option<PathBuf>,
    /// Key of that certificate, for its owner alone to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_file: Option<PathBuf>,
    /// Name that its certificate must have, such as `server.dc1.consul`. Default the host that is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub server_name: Option<String>,
    /// SPIFFE ids that this source may name for any service, whole or all below a path that ends in `/*`. Whoever can write
    /// to it can then lead calls for every service to each of those. Default none: it says where a service is, and the
    /// configuration who it is.
    #[serde(default, deserialize_with = "value::spiffe_patterns")]
    pub may_name_identities: Vec<String>,
}

impl XdsSourceConfig {
    /// The control plane at `server`, all else default.
    pub fn new(server: String) -> Self {
        Self {
            name: xds(),
            servers: vec![server],
            node_id: None,
            node_cluster: None,
            variant: XdsVariant::Sotw,
            token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            server_name: None,
            may_name_identities: Vec::new(),
        }
    }
}

/// The form of the xDS protocol.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum XdsVariant {
    /// State of the world: each response lists everything.
    #[default]
    Sotw,
    /// Incremental: each response says what has changed.
    Delta,
}

/// DNS: SRV records, and the addresses of their targets. DNS tells nobody of changes, so they are seen when a TTL has
/// passed.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DnsSourceConfig {
    /// What the source is called in logs and reports; each source has a name of its own. Default `dns`.
    #[serde(default = "dns")]
    pub name: String,
    /// The DNS name of a service, with `{service}` in it. Search domains are never tried. Required.
    pub template: String,
    /// DNS names of single services, in place of the template. Default none.
    #[serde(default, deserialize_with = "value::by_service")]
    pub names: BTreeMap<String, String>,
    /// Whether SRV records are asked for. Default true.
    #[serde(default = "yes")]
    pub srv: bool,
    /// Port of services that have no SRV record. Default: a service without one has no endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16")]
    pub port: Option<NonZeroU16>,
    /// Name servers, with their ports; at most 8. Default those of `/etc/resolv.conf`.
    #[serde(default, deserialize_with = "value::socket_addrs")]
    #[schemars(with = "Vec<String>")]
    pub servers: Vec<SocketAddr>,
    /// The least that an answer counts, whatever its TTL. Default `5s`.
    #[serde(default = "min_ttl", with = "value::duration")]
    #[schemars(with = "String")]
    pub min_ttl: Duration,
    /// The longest that an answer counts. Default `5m`.
    #[serde(default = "max_ttl", with = "value::duration")]
    #[schemars(with = "String")]
    pub max_ttl: Duration,
    /// The longest that it counts that a name does not exist. Default `30s`.
    #[serde(default = "max_negative_ttl", with = "value::duration")]
    #[schemars(with = "String")]
    pub max_negative_ttl: Duration,
    /// Ranges of addresses that answers may hold although they are loopback, link-local or a listener of this node, such as
    /// `127.0.0.0/8`. Default none.
    #[serde(default)]
    pub allow: Vec<String>,
}

fn consul() -> String {
    "consul".to_owned()
}

fn consul_url() -> String {
    "http://127.0.0.1:8500".to_owned()
}

fn etcd() -> String {
    "etcd".to_owned()
}

fn etcd_prefix() -> String {
    "/mesh/services/".to_owned()
}

fn file() -> String {
    "file".to_owned()
}

fn xds() -> String {
    "xds".to_owned()
}

fn dns() -> String {
    "dns".to_owned()
}

fn yes() -> bool {
    true
}

fn min_ttl() -> Duration {
    Duration::from_secs(5)
}

fn max_ttl() -> Duration {
    Duration::from_mins(5)
}

fn max_negative_ttl() -> Duration {
    Duration::from_secs(30)
}
