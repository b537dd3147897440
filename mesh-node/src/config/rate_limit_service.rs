//! The rate limit service that a node serves to Envoys and other nodes.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::path::PathBuf;

use mesh_resilience::limit::rls::DomainConfig;
use mesh_resilience::limit::rls::Rules;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::ConfigError;
use super::Document;
use super::NodeConfig;
use super::decode;
use super::read_text;
use super::tree::Node;
use super::value;

/// Envoy's rate limit service, served by this node: whoever may ask it keeps limits together with all others who do. Counts
/// are in the memory of this node, so that one node serves a domain.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitServiceConfig {
    /// Where it listens: on loopback in plaintext for whoever is on this machine, or with `callers` anywhere, over mutual
    /// TLS with this node's identity. Default `127.0.0.1:8081`, as that of `envoyproxy/ratelimit` does.
    #[serde(default = "default_listen", deserialize_with = "value::socket_addr")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Files with rules, in the form that `envoyproxy/ratelimit` reads; each has one domain. Read at the start. Required.
    #[schemars(with = "Vec<String>")]
    pub files: Vec<PathBuf>,
    /// SPIFFE ids that may ask; one that ends in `/*` stands for all below it. With any, mutual TLS is required. Needed
    /// where `listen` is not on loopback. Default: none, plaintext.
    #[serde(default, deserialize_with = "value::spiffe_patterns")]
    pub callers: Vec<String>,
    /// Descriptors that are remembered for each different limit, some 300 bytes each at most. More distinct active ones
    /// make it forget some, and so let more calls of those pass. Default 100,000.
    #[serde(default = "default_keys")]
    pub max_keys: NonZeroU32,
    /// What is in the files.
    #[serde(skip)]
    pub(crate) domains: Vec<DomainConfig>,
}

impl RateLimitServiceConfig {
    /// Serves the rules in these files; all else default.
    ///
    /// # Errors
    ///
    /// A file that can't be read or has a rule that can't be.
    pub fn load(files: Vec<PathBuf>) -> Result<Self, ConfigError> {
        let read = read(&files)?;
        Ok(Self {
            listen: default_listen(),
            files,
            callers: Vec::new(),
            max_keys: default_keys(),
            domains: read,
        })
    }
}

/// Reads the files that `config` names.
pub(super) fn fill(config: &mut NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let Some(service) = &mut config.rate_limit_service else {
        return Ok(());
    };
    if service.files.is_empty() {
        return Err(document.error("rate_limit_service.files", "names no file with rules"));
    }
    if service.callers.is_empty() && !service.listen.ip().is_loopback() {
        let message = "is not on loopback, where anybody may use up the limits of others; name those who may ask in \
                       rate_limit_service.callers, which makes mutual TLS required";
        return Err(document.error("rate_limit_service.listen", message));
    }
    service.domains = read(&service.files)?;
    Ok(())
}

/// The domains in the files, whose rules are known to be good.
fn read(files: &[PathBuf]) -> Result<Vec<DomainConfig>, ConfigError> {
    let mut trees = Vec::with_capacity(files.len());
    let mut domains = Vec::with_capacity(files.len());
    for path in files {
        let (shown, root) = parse(path)?;
        domains.push(decode::decode(&root, &shown)?);
        trees.push((shown, root));
    }
    let Err(error) = Rules::new(&domains) else {
        return Ok(domains);
    };
    let reason = error.reason.to_string();
    Err(match trees.get(error.domain) {
        Some((shown, root)) => {
            ConfigError::new(shown, root.place_of(&error.key), &error.key, reason)
        }
        None => ConfigError::unreadable("", std::io::Error::other(reason)),
    })
}

fn parse(path: &Path) -> Result<(String, Node), ConfigError> {
    let shown = path.display().to_string();
    let text = read_text(path).map_err(|source| ConfigError::unreadable(&shown, source))?;
    let root = Node::parse(&text, &shown)?;
    Ok((shown, root))
}

const fn default_listen() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081)
}

fn default_keys() -> NonZeroU32 {
    value::nonzero(100_000)
}
