//! How a node proves who it is.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::ConsulConfig;
use super::value;

/// How this node proves who it is.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// SPIFFE trust domain, such as `example.org`. Required; with `source: consul` it may be left out, and is Consul's.
    #[serde(default = "unknown_domain", deserialize_with = "value::trust_domain")]
    pub trust_domain: String,
    /// Where certificate and key come from: `files`, `workload_api`, `builtin` or `consul`. Default `files`.
    #[serde(default)]
    pub source: IdentitySource,
    /// PEM certificate of this service, its chain behind it. Required with `source: files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cert_file: Option<PathBuf>,
    /// PEM private key of that certificate. Required with `source: files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_file: Option<PathBuf>,
    /// PEM roots that peers' certificates must lead to. Required with `source: files`. With `ca_url`: the roots that the
    /// authority itself must lead to until it tells of others; required there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_file: Option<PathBuf>,
    /// With `source: builtin`: the folder with `ca.crt` and `ca.key` (`mesh-node ca init` makes it). With `ca_url`: the
    /// folder where this node keeps its own key and certificate, so that a restart needs no join token. Required with
    /// `source: builtin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_dir: Option<PathBuf>,
    /// Unix socket of the SPIFFE Workload API, as a path or as `unix:///path`, with `source: workload_api`. The folder that
    /// it lies in must be its owner's alone to write: who puts a socket there says who we are. Default: the environment
    /// variable `SPIFFE_ENDPOINT_SOCKET`.
    #[serde(
        default,
        deserialize_with = "value::unix_socket",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub workload_api_socket: Option<PathBuf>,
    /// How Consul is reached, with `source: consul`. Default: the agent on this machine, without a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConsulConfig")]
    pub consul: Option<ConsulConfig>,
    /// With `source: builtin`: the served authority (`mesh-node ca serve`) to ask, as `https://HOST:PORT`. Default: the
    /// authority's key lies in `ca_dir`, and this node issues its own certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_url: Option<String>,
    /// With `ca_url`: file with the join token (`mesh-node ca token`) that the first certificate is got with; nobody but
    /// this user may read it. Of no use afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub join_token_file: Option<PathBuf>,
    /// Lifetime of the certificates that the built-in CA issues. Shorter limits what a stolen key is worth; each renewal
    /// costs one ECDSA signature. A served authority may allow less. Default `1h`.
    #[serde(default = "default_lifetime", with = "value::duration")]
    #[schemars(with = "String")]
    pub certificate_lifetime: Duration,
    /// Other trust domains whose workloads are known here, each by its own roots. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federation: Vec<FederationConfig>,
    /// Trust domains whose workloads count as ours in rules, for a migration from one name to another: each is verified
    /// by its own roots, so it stands in `federation` too (with `source: workload_api` the agent may give them). Default:
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust_domain_aliases: Vec<String>,
    /// How long the start waits for the first identity of a source that is asked over a socket; then the node stops and
    /// says why. Default `30s`.
    #[serde(default = "default_startup", with = "value::duration")]
    #[schemars(with = "String")]
    pub startup_timeout: Duration,
    /// What the source says beside certificates, once it was asked.
    #[serde(skip)]
    pub(crate) learnt: Option<Learnt>,
}

/// What only Consul knows of the names in the mesh.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Learnt {
    pub(crate) trust_domain: String,
    pub(crate) datacenter: String,
    /// This node's SPIFFE id.
    pub(crate) id: String,
}

impl IdentityConfig {
    /// Certificate, key and roots from PEM files.
    pub fn from_files(
        trust_domain: &str,
        cert_file: &Path,
        key_file: &Path,
        ca_file: &Path,
    ) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            source: IdentitySource::Files,
            cert_file: Some(cert_file.to_owned()),
            key_file: Some(key_file.to_owned()),
            ca_file: Some(ca_file.to_owned()),
            ca_dir: None,
            workload_api_socket: None,
            consul: None,
            ca_url: None,
            join_token_file: None,
            certificate_lifetime: CERTIFICATE_LIFETIME,
            federation: Vec::new(),
            trust_domain_aliases: Vec::new(),
            startup_timeout: STARTUP_TIMEOUT,
            learnt: None,
        }
    }

    /// Certificates of Consul's Connect CA, asked for as `consul` says.
    pub fn from_consul(consul: ConsulConfig) -> Self {
        Self {
            source: IdentitySource::Consul,
            consul: Some(consul),
            ca_dir: None,
            ..Self::from_builtin(UNKNOWN_DOMAIN, Path::new(""))
        }
    }

    /// The trust domain: the configured one, or what the source said. Before Consul was asked it is `unknown.consul`.
    pub fn trust_domain(&self) -> &str {
        let learnt = self.learnt.as_ref();
        learnt.map_or(&self.trust_domain, |learnt| &learnt.trust_domain)
    }

    /// The trust domain where the configuration names one.
    pub(crate) fn configured_trust_domain(&self) -> Option<&str> {
        (self.trust_domain != UNKNOWN_DOMAIN).then_some(&self.trust_domain)
    }

    /// Certificates issued by the built-in CA whose certificate and key lie in `ca_dir`.
    pub fn from_builtin(trust_domain: &str, ca_dir: &Path) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            source: IdentitySource::Builtin,
            cert_file: None,
            key_file: None,
            ca_file: None,
            ca_dir: Some(ca_dir.to_owned()),
            workload_api_socket: None,
            consul: None,
            ca_url: None,
            join_token_file: None,
            certificate_lifetime: CERTIFICATE_LIFETIME,
            federation: Vec::new(),
            trust_domain_aliases: Vec::new(),
            startup_timeout: STARTUP_TIMEOUT,
            learnt: None,
        }
    }
}

/// A trust domain beside our own.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FederationConfig {
    /// Its name. Required.
    #[serde(deserialize_with = "value::trust_domain")]
    pub trust_domain: String,
    /// Its roots: PEM, or a bundle as SPIFFE servers publish it. Watched. Required.
    #[schemars(with = "String")]
    pub bundle_file: PathBuf,
}

/// Where certificate and key come from.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// PEM files.
    #[default]
    Files,
    /// The SPIFFE Workload API of an agent on this machine, such as SPIRE's.
    WorkloadApi,
    /// The built-in CA: the node issues its own certificate, or asks the served authority at `ca_url`.
    Builtin,
    /// Consul's Connect CA, asked by way of the agent on this machine.
    Consul,
}

fn unknown_domain() -> String {
    UNKNOWN_DOMAIN.to_owned()
}

/// The SPIFFE Workload API that this node serves to programs on this machine: the identity of its own service, X509-SVIDs
/// and X.509 bundles.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadApiConfig {
    /// Where the socket is made. Its folder must be one that nobody else may write. Required.
    #[schemars(with = "String")]
    pub socket: PathBuf,
    /// Users whose programs get the identity, by number. Default: the user that the node runs as.
    #[serde(default)]
    pub uids: Vec<u32>,
    /// Group that the socket belongs to where `uids` names others; they must be in it. Default: the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub gid: Option<u32>,
}

fn default_lifetime() -> Duration {
    CERTIFICATE_LIFETIME
}

fn default_startup() -> Duration {
    STARTUP_TIMEOUT
}

/// Stands for Consul's trust domain until Consul was asked. Consul's own ones begin with a UUID.
const UNKNOWN_DOMAIN: &str = "unknown.consul";
/// DESIGN section 7: certificate lifetime 1 h.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(1);
/// As long as an orchestrator waits before it counts a start as failed.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
