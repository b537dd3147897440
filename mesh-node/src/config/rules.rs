//! What no single type can say: keys that need, exclude or contradict each other.
//!
//! Most of the policy's rules are not among them: the policy engine refuses what it can't enforce, by the rule's name.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::ConfigError;
use super::Document;
use super::NodeConfig;
use super::identity::IdentitySource;

/// Checks `config`, which came from `document`.
pub(super) fn check(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    identity(config, document)?;
    addresses(config, document)?;
    endpoints(config, document)?;
    groups(config, document)?;
    let retry = &config.resilience.retry;
    if retry.initial_delay > retry.max_delay {
        return Err(document.error(
            "resilience.retry.max_delay",
            "must not be shorter than initial_delay",
        ));
    }
    Ok(())
}

/// Groups come from tokens, and every node that shares the secret of the only tokens there are can write any group
/// into one: such a rule would let everybody in, so it is refused.
fn groups(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    for (rule, index) in config.policy.rules.iter().zip(0..) {
        if let Some(at) = rule.from.iter().position(|from| from.starts_with("group:")) {
            let key = format!("policy.rules[{index}].from[{at}]");
            let message = "groups need tokens of an issuer whose key no node has, which this version does not \
                           read; name services or SPIFFE ids instead";
            return Err(document.error(&key, message));
        }
    }
    Ok(())
}

fn identity(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let identity = &config.identity;
    let files = [
        ("cert_file", &identity.cert_file),
        ("key_file", &identity.key_file),
        ("ca_file", &identity.ca_file),
    ];
    let folder = [("ca_dir", &identity.ca_dir)];
    let (source, needed, unused) = match identity.source {
        IdentitySource::Files => ("files", &files[..], &folder[..]),
        IdentitySource::Builtin => ("builtin", &folder[..], &files[..]),
    };
    if let Some((key, _)) = needed.iter().find(|(_, path)| path.is_none()) {
        let message = format!("the required key \"{key}\" is missing; `source: {source}` needs it");
        return Err(document.error("identity", message));
    }
    if let Some((key, _)) = unused.iter().find(|(_, path)| path.is_some()) {
        let message =
            format!("has no meaning with `source: {source}`; remove it or change the source");
        return Err(document.error(&format!("identity.{key}"), message));
    }
    let own = format!("spiffe://{}/", identity.trust_domain);
    match &config.service.spiffe_id {
        Some(id) if !id.starts_with(&own) => {
            let message = format!(
                "{id:?} is not in the trust domain {}; it must begin with {own}",
                identity.trust_domain
            );
            Err(document.error("service.spiffe_id", message))
        }
        _ => Ok(()),
    }
}

/// Two listeners can't share an address; the system would say so only once the node starts.
fn addresses(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let mut listeners = vec![
        ("service.listen".to_owned(), config.service.listen),
        ("outbound.listen".to_owned(), config.outbound.listen),
        ("admin.listen".to_owned(), config.admin.listen),
    ];
    for (index, upstream) in config.outbound.upstreams.iter().enumerate() {
        listeners.push((format!("outbound.upstreams[{index}].bind"), upstream.bind));
    }
    let mut seen: BTreeMap<u16, Vec<(String, SocketAddr)>> = BTreeMap::new();
    for (key, address) in listeners
        .into_iter()
        .filter(|(_, address)| address.port() != 0)
    {
        let same_port = seen.entry(address.port()).or_default();
        let overlaps = |other: &SocketAddr| {
            other.ip() == address.ip()
                || other.ip().is_unspecified()
                || address.ip().is_unspecified()
        };
        if let Some((first, other)) = same_port.iter().find(|(_, other)| overlaps(other)) {
            let message = format!(
                "{address} is taken by {first} ({other}); every listener needs an address of its own"
            );
            return Err(document.error(&key, message));
        }
        same_port.push((key, address));
    }
    Ok(())
}

fn endpoints(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    for (number, source) in config.discovery.sources.iter().enumerate() {
        let mut seen = BTreeSet::new();
        for (index, endpoint) in source.services.iter().enumerate() {
            if !seen.insert((&endpoint.id, &endpoint.host, endpoint.port)) {
                let key = format!("discovery.sources[{number}].services[{index}]");
                let message = format!(
                    "{} at {}:{} is listed twice",
                    endpoint.id, endpoint.host, endpoint.port
                );
                return Err(document.error(&key, message));
            }
        }
    }
    Ok(())
}
