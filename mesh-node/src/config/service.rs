//! Who this node is, where it listens, and what its application calls.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;
use super::value::HostPort;

/// The service that this node stands beside.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Name of the service, as others call it: lower-case letters, digits, `-`, `_` and `.`. Required.
    #[serde(deserialize_with = "value::service_name")]
    pub id: String,
    /// Address on which other nodes reach this one. Default `0.0.0.0:50051`.
    #[serde(default = "default_listen", deserialize_with = "value::socket_addr")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Our application, as `host:port`. Absent: the handlers of an embedding program answer, or the node only calls out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub app: Option<HostPort>,
    /// SPIFFE id of this service. Default `spiffe://<identity.trust_domain>/<service.id>`.
    #[serde(
        default,
        deserialize_with = "value::some_spiffe_id",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub spiffe_id: Option<String>,
    /// The zone that this node runs in, as endpoints name theirs: endpoints of the same zone are preferred
    /// (`resilience.load_balancing.zone_aware`), and the node registers itself there. Absent: none is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub zone: Option<String>,
    /// Applications of this service that do not speak HTTP, each on a port of its own for other nodes. Default none.
    #[serde(default)]
    pub tcp: Vec<TcpConfig>,
}

impl ServiceConfig {
    /// The service `id` with every default.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            listen: default_listen(),
            app: None,
            spiffe_id: None,
            zone: None,
            tcp: Vec::new(),
        }
    }
}

/// An application that does not speak HTTP: its connections are carried as they are. Rules decide about them by caller,
/// service and port.
///
/// Who calls is proven by its certificate alone: such a connection carries no service token (`auth.jwt`) and runs in no
/// session (`security.encryption: hybrid`), so mutual TLS is all that protects it.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TcpConfig {
    /// Address on which other nodes reach it. Required.
    #[serde(deserialize_with = "value::socket_addr")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The application, as `host:port`. Required.
    #[schemars(with = "String")]
    pub app: HostPort,
}

/// What the local application calls through this node.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundConfig {
    /// Address on which the application reaches every service by its name. Keep it on loopback: who reaches it speaks
    /// as this service. Default `127.0.0.1:15001`.
    #[serde(deserialize_with = "value::socket_addr")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Ports of their own for single services. Default none.
    pub upstreams: Vec<UpstreamConfig>,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, OUTBOUND_PORT)),
            upstreams: Vec::new(),
        }
    }
}

/// One service on a local port of its own.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Name of the service that is called. Required.
    #[serde(deserialize_with = "value::service_name")]
    pub service: String,
    /// Local address that leads to it. Required.
    #[serde(deserialize_with = "value::socket_addr")]
    #[schemars(with = "String")]
    pub bind: SocketAddr,
    /// What is spoken there: `http`, or `tcp`, whose bytes are carried as they are to a port under `service.tcp` of the
    /// other node. Default `http`.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
}

/// What an application speaks to a service.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1 or HTTP/2, gRPC among it.
    #[default]
    Http,
    /// Anything.
    Tcp,
}

/// How the node stops.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// How long calls in flight may go on after a stop signal before they are cut. Default `30s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// How long the node goes on as before once its entries in registries are gone (`discovery.register`), so that others
    /// have seen it when it stops to take calls. Default `1s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub deregister_wait: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            timeout: DRAIN_TIMEOUT,
            deregister_wait: DEREGISTER_WAIT,
        }
    }
}

/// The async runtime.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that serve requests. Fewer threads wake each other less; one is the cheapest for a quiet sidecar.
    /// Default: the number of cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NonZeroUsize")]
    pub worker_threads: Option<NonZeroUsize>,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVICE_PORT))
}

/// The port that other nodes connect to (DESIGN section 9).
const SERVICE_PORT: u16 = 50051;
/// The port of the local outbound listener (DESIGN section 9; Istio's number).
const OUTBOUND_PORT: u16 = 15001;
/// Twice as long as it takes until others have seen a change (RELIABILITY D-4).
const DEREGISTER_WAIT: Duration = Duration::from_secs(1);
/// As long as the default request timeout, so that a call that began just before the signal can end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
