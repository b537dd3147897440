//! A client of xDS: follows services in a control plane such as Istio's or one made with go-control-plane.
//!
//! Choose it where a control plane for Envoy or gRPC is there already. [`source`] gives a [`Registry`]
//! and its [`Driver`]. A service is the cluster of its name, and is asked for when somebody watches it,
//! never before: one stream of the aggregated discovery service carries the clusters (CDS) and assignments (EDS) of what
//! is watched, in state of the world or incremental, and no stream is open while nothing is.
//!
//! A response is taken resource by resource: what is good in it is used; what is bad is refused by name, to the server too,
//! and its last good state stays. The same bad version is refused once, however often the server repeats it. A stream that
//! ends is begun anew after 0.5 to 8 s. It says which versions of assignments are there already, as long as it leads to the
//! same server; clusters are small and asked for anew, so that there is an answer that shows that the server is there.
//!
//! # How resources become endpoints
//!
//! | field | becomes |
//! |---|---|
//! | `Cluster.type` | `EDS` and `STATIC` are followed, others refused: who resolves a name would decide where traffic goes |
//! | `Cluster.eds_cluster_config` | the assignment, by `service_name` or else the cluster's name; its source must be `ads` or `self` |
//! | `Cluster.load_assignment` | the endpoints of a `STATIC` cluster |
//! | `SocketAddress` | host and port of an [`Endpoint`]; an IP address and TCP, else refused |
//! | `Locality` | `zone`: `region/zone/sub_zone`, as far as given |
//! | `LocalityLbEndpoints.priority` | `priority`; one that is skipped is refused |
//! | `load_balancing_weight` | `weight`: the locality's share times the endpoint's share in it, scaled to 65,535 |
//! | `health_status` | `condition`: `UNHEALTHY` and `TIMEOUT` critical, `DRAINING` draining, `DEGRADED` warning, others passing |
//! | `LbEndpoint.metadata`, filter `mesh` | as in [`metadata`](crate::metadata); `weight` only where there is no `load_balancing_weight` |
//! | `Policy.drop_overloads` | [`Findings::drops`]; whoever sends requests asks [`Findings::drops_now`] of each |
//! | `Policy.endpoint_stale_after` | the list turns stale when no other came for that long |
//!
//! Everything else has no effect, and [`Findings::ignored`] lists what of it was received, by full name.
//!
//! # What it does not do
//!
//! It takes no listeners and routes (LDS, RDS), no aggregate or logical clusters, no endpoints over LEDS, no `xdstp` names
//! and no wildcard subscription. It does not return to the first of several servers before the one in use fails.
//!
//! # Sources
//!
//! Envoy, "xDS REST and gRPC protocol"; the xDS API v3 of Envoy 1.37; gRFC A27 (CDS and EDS), A32 (drops), A46 (good
//! resources of a response that is refused) and A57 (a stream that ends after a response is no failure).

mod assignment;
mod cluster;
mod drops;
mod fields;
mod findings;
mod follower;
mod ignored;
mod message;
mod pace;
mod refusal;
mod stream;
mod topic;
mod turns;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::ignored::Ignored;
use self::stream::Stream;
use crate::endpoint::Endpoint;
use crate::grpc::Dialer;
use crate::grpc::KeepAlive;
use crate::origin::origin;
use crate::registry::Driver;
use crate::registry::Registry;
use crate::registry::RegistryConfig;
use crate::tls::TlsConfig;

pub use self::drops::DropOverload;
pub use self::drops::dropped_by;
pub use self::findings::Counts;
pub use self::findings::Findings;
pub use self::ignored::IgnoredField;

/// Any error of what the caller supplies or of what lies below.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives a bearer token, read anew for each stream.
pub type TokenFor = dyn Fn() -> std::io::Result<String> + Send + Sync;

/// Gives random numbers; they spread the attempts of many clients.
pub type RandomFor = dyn Fn() -> u64 + Send + Sync;

/// How to follow services in a control plane.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Management servers, such as `https://xds.example.org:18000`: the first is used until it fails, then the next.
    pub servers: Vec<String>,
    /// Needed with `https`.
    pub tls: Option<TlsConfig>,
    /// Who asks.
    pub node: Node,
    /// Default [`Variant::StateOfTheWorld`].
    pub variant: Variant,
    /// A token that is shown to the server; only over `https`. Default none.
    pub token: Option<Arc<TokenFor>>,
    /// Random numbers, for the pauses between attempts.
    pub random: Arc<RandomFor>,
    /// How long connecting may take, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// How long the server has for its first word on a resource, before that counts as not there. Default 15 s, as the
    /// protocol proposes.
    pub first_answer: Duration,
    /// How long nothing must have come before the server is asked for a sign of life. Default 30 s; servers made with
    /// gRPC may hang up on those who ask more often than they allow, which costs a new stream.
    pub keep_alive: Duration,
    /// The longest message that is taken, in bytes. Default 4 MiB.
    pub max_message: usize,
    /// Where to look up what was received besides endpoints; keep a clone.
    pub findings: Findings,
}

impl Config {
    /// Follows services in the first of `servers` that works, as the node `id`; all else default.
    pub fn new(servers: Vec<String>, id: impl Into<String>, random: Arc<RandomFor>) -> Self {
        Self {
            servers,
            tls: None,
            node: Node::new(id),
            variant: Variant::default(),
            token: None,
            random,
            connect_timeout: Duration::from_secs(5),
            first_answer: Duration::from_secs(15),
            keep_alive: Duration::from_secs(30),
            max_message: 4 << 20,
            findings: Findings::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field(
                "servers",
                &self
                    .servers
                    .iter()
                    .map(|one| origin(one))
                    .collect::<Vec<_>>(),
            )
            .field("node", &self.node)
            .field("variant", &self.variant)
            .finish_non_exhaustive()
    }
}

/// Who asks, as the control plane sees it: `core.v3.Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// What this node is called; control planes often decide by it what they give.
    pub id: String,
    /// The service that this node belongs to.
    pub cluster: String,
    /// Where it runs.
    pub locality: Locality,
    /// What else the control plane wants to know; texts only.
    pub metadata: BTreeMap<String, String>,
}

impl Node {
    /// A node of which nothing else is known.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }
}

/// Where something runs: `core.v3.Locality`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Locality {
    /// Such as `eu-central`.
    pub region: String,
    /// Such as `eu-central-1a`.
    pub zone: String,
    /// A part of it, such as a rack.
    pub sub_zone: String,
}

impl Locality {
    /// A place; parts that are not known are empty.
    pub fn new(
        region: impl Into<String>,
        zone: impl Into<String>,
        sub_zone: impl Into<String>,
    ) -> Self {
        Self {
            region: region.into(),
            zone: zone.into(),
            sub_zone: sub_zone.into(),
        }
    }
}

/// Which form of the protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// Each response lists all clusters that were asked for. Every server speaks it.
    #[default]
    StateOfTheWorld,
    /// Responses say what has changed.
    Incremental,
}

/// A source that follows services in a control plane; the driver does its work.
///
/// # Errors
///
/// [`Error`]; nothing is connected to yet.
pub fn source(config: Config, registry: RegistryConfig) -> Result<(Registry, Driver), Error> {
    if config.node.id.is_empty() {
        return Err(Error::Node);
    }
    let times = [
        config.first_answer,
        config.keep_alive,
        config.connect_timeout,
    ];
    if times.contains(&Duration::ZERO) || config.max_message == 0 {
        return Err(Error::Zero);
    }
    let is_plain = |server: &String| server.starts_with("http://");
    if config.token.is_some() && config.servers.iter().any(is_plain) {
        return Err(Error::PlainToken);
    }
    let keep_alive = KeepAlive {
        interval: config.keep_alive,
        timeout: KEEP_ALIVE_TIMEOUT.min(config.keep_alive),
    };
    let dialer = Dialer::new(
        &config.servers,
        config.tls.as_ref(),
        config.connect_timeout,
        keep_alive,
    );
    let dialer = dialer.map_err(|source| Error::Server {
        source: source.into(),
    })?;
    let (registry, wants) = Registry::new(registry);
    let stream = Stream::new(config, dialer);
    Ok((registry, Driver::new(stream.run(wants))))
}

/// The endpoints in the bytes of a `ClusterLoadAssignment`, and which of its fields have no effect, for who gets it by
/// another way than a stream.
///
/// # Errors
///
/// What is wrong with it, and with which field; one that is wrong is refused as a whole.
pub fn endpoints(assignment: &[u8]) -> Result<(Vec<Endpoint>, Vec<IgnoredField>), BoxError> {
    let mut ignored = Ignored::default();
    ignored.enter(assignment::name(assignment).unwrap_or_default());
    let read = assignment::decode(assignment, &mut ignored).map_err(|wrong| wrong.to_string())?;
    Ok((read.endpoints, ignored.list()))
}

/// Why there can be no such source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server's address or the settings of TLS are of no use.
    #[error("the xds servers can't be used")]
    Server {
        /// Why.
        source: BoxError,
    },
    /// Nobody asks.
    #[error("xds needs the id of a node; control planes decide by it what they give")]
    Node,
    /// Nothing could ever arrive.
    #[error("a time or size of zero lets no answer of xds arrive; leave it out for the default")]
    Zero,
    /// A token for all who listen.
    #[error("a token for xds is shown only over https; use https for all servers or leave it out")]
    PlainToken,
}

/// How long a server has for its sign of life.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
