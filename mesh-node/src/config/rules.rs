//! What no single type can say: keys that need, exclude or contradict each other.
//!
//! Most of the policy's rules are not among them: the policy engine refuses what it can't enforce, by the rule's name.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::error::Error as _;
use std::net::SocketAddr;

use http::HeaderName;

use super::ConfigError;
use super::Document;
use super::HashOnConfig;
use super::NodeConfig;
use super::RateLimitStoreConfig;
use super::RlsStoreConfig;
use super::RlsWhenAway;
use super::SourceConfig;
use super::WhenAway;
use super::identity::IdentityConfig;
use super::identity::IdentitySource;
use crate::consul::names::is_never_seen;
use crate::route::RouteTable;

/// Checks `config`, which came from `document`.
pub(super) fn check(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    identity(config, document)?;
    addresses(config, document)?;
    source_names(config, document)?;
    registration(config, document)?;
    endpoints(config, document)?;
    auth(config, document)?;
    users(config, document)?;
    consul(config, document)?;
    health_check(config, document)?;
    let retry = &config.resilience.retry;
    if retry.initial_delay > retry.max_delay {
        return Err(document.error(
            "resilience.retry.max_delay",
            "must not be shorter than initial_delay",
        ));
    }
    balancing(config, document)?;
    rate_limit(config, document)?;
    routes(config, document)
}

/// What the balancer and the detector of outliers can't be made with.
fn balancing(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let resilience = &config.resilience;
    let balancing = &resilience.load_balancing;
    let wrong = |key: &str, why: &str| Err(document.error(&format!("resilience.{key}"), why));
    let balance = balancing.balance(config.service.zone.as_deref());
    if let Err(error) = balance.check() {
        return wrong("load_balancing", &error.to_string());
    }
    match (balance.policy.is_by_hash(), &balancing.hash_on) {
        (true, None) => wrong(
            "load_balancing.policy",
            "needs hash_on, which says what calls are told apart by",
        )?,
        (false, Some(_)) => wrong(
            "load_balancing.hash_on",
            "is for the policies ring_hash and maglev",
        )?,
        (true, Some(on)) => hash_on(on).or_else(|why| wrong("load_balancing.hash_on", why))?,
        (false, None) => {}
    }
    if resilience.outlier_ejection.max_percent > 100 {
        return wrong(
            "outlier_ejection.max_percent",
            "write a number from 0 to 100",
        );
    }
    match resilience.outlier_ejection.outliers().check() {
        Err(error) => wrong("outlier_ejection", &error.to_string()),
        Ok(()) => Ok(()),
    }
}

fn hash_on(on: &HashOnConfig) -> Result<(), &'static str> {
    match (&on.header, &on.cookie, on.caller) {
        (Some(name), None, false) if HeaderName::from_bytes(name.as_bytes()).is_err() => {
            Err("names no header field that can be")
        }
        (Some(_), None, false) | (None, Some(_), false) | (None, None, true) => Ok(()),
        _ => Err("takes exactly one of header, cookie and caller"),
    }
}

fn rate_limit(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let limit = config.resilience.rate_limit.as_ref();
    let wrong = |key: &str, message: &str| {
        let key = format!("resilience.rate_limit.store{key}");
        Err(document.error(&key, message))
    };
    let redis = match limit.and_then(|limit| limit.store.as_ref()) {
        Some(RateLimitStoreConfig::Redis(redis)) => redis,
        Some(RateLimitStoreConfig::Rls(rls)) => return rate_limit_service(rls, wrong),
        None => return Ok(()),
    };
    if redis.cert_file.is_some() != redis.key_file.is_some() {
        return wrong("", "needs both of \"cert_file\" and \"key_file\", or none");
    }
    if redis.username.is_some() && redis.password_file.is_none() {
        return wrong(".username", "needs a \"password_file\"");
    }
    if redis.timeout.is_zero() {
        return wrong(".timeout", "must be longer than nothing");
    }
    if redis.connect_timeout.is_zero() {
        return wrong(".connect_timeout", "must be longer than nothing");
    }
    match (redis.when_away, redis.nodes) {
        (WhenAway::LocalShare, None) => wrong(
            "",
            "needs \"nodes\": how many share the limit, for `when_away: local_share`",
        ),
        (WhenAway::Closed, Some(_)) => wrong(
            ".nodes",
            "has no meaning with `when_away: closed`; remove it",
        ),
        _ => Ok(()),
    }
}

fn rate_limit_service(
    rls: &RlsStoreConfig,
    wrong: impl Fn(&str, &str) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    if rls.domain.is_empty() {
        return wrong(".domain", "must not be empty");
    }
    if rls.timeout.is_zero() {
        return wrong(".timeout", "must be longer than nothing");
    }
    if rls.descriptors.is_empty() || rls.descriptors.iter().any(Vec::is_empty) {
        return wrong(".descriptors", "needs lists of entries, such as [ [peer] ]");
    }
    match (rls.when_away, rls.nodes) {
        (RlsWhenAway::LocalShare, None) => wrong(
            "",
            "needs \"nodes\": how many share the limit, for `when_away: local_share`",
        ),
        (RlsWhenAway::Closed | RlsWhenAway::Open, Some(_)) => wrong(
            ".nodes",
            "has no meaning without `when_away: local_share`; remove it",
        ),
        _ => Ok(()),
    }
}

/// Compiled as the node does it, so that what can't be used is refused with its place.
fn routes(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    RouteTable::new(&config.routes).map_err(|error| {
        let why = error
            .source()
            .map_or(String::new(), |why| format!(": {why}"));
        document.error(&error.key, format!("{}{why}", error.problem))
    })?;
    for (route, index) in config.routes.iter().zip(0..) {
        if let Some(retry) = &route.retry
            && retry.initial_delay > retry.max_delay
        {
            let key = format!("routes[{index}].retry.max_delay");
            return Err(document.error(&key, "must not be shorter than initial_delay"));
        }
    }
    Ok(())
}

fn health_check(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let check = &config.discovery.health_check;
    let wrong = |field: &str, message: &str| {
        Err(document.error(&format!("discovery.health_check.{field}"), message))
    };
    if check.timeout > check.interval {
        return wrong("timeout", "must not be longer than interval");
    }
    match mesh_discovery::CheckTable::new(check.schedule()) {
        Err(mesh_discovery::Error::HealthConfig { field, reason }) => return wrong(field, reason),
        Err(error) => return wrong("interval", &error.to_string()),
        Ok(_) => {}
    }
    match mesh_discovery::GrpcProbe::new(&config.service.id, &check.grpc_service) {
        Err(error) => wrong("grpc_service", &error.to_string()),
        Ok(_) => Ok(()),
    }
}

/// Users come from credentials. The mesh's own service tokens are none: every node that shares their secret can write
/// any group into one, and such a rule would let everybody in.
fn users(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    if config.auth.knows_users() {
        return Ok(());
    }
    // Rules for other services may stand in a file that several nodes share.
    let is_ours = |service: &str| service == config.service.id || service.contains('*');
    let rules = config.policy.rules.iter().zip(0..);
    for (rule, index) in rules.filter(|(rule, _)| is_ours(&rule.to.service)) {
        let needs_user = |from: &String| USERS.iter().any(|kind| from.starts_with(kind));
        let at = rule.from.iter().position(needs_user);
        let key = match at {
            Some(at) => format!("policy.rules[{index}].from[{at}]"),
            None if !rule.users.is_empty() => format!("policy.rules[{index}].users"),
            None => continue,
        };
        let message = "nobody can match: no credentials of users are verified here; add auth.issuers, \
                       auth.consumers or auth.api_keys, or name services or SPIFFE ids instead";
        return Err(document.error(&key, message));
    }
    Ok(())
}

fn auth(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let auth = &config.auth;
    let mut names = BTreeSet::new();
    let mut once = |name: &str, key: String| {
        if names.insert(name.to_owned()) {
            return Ok(());
        }
        let message = "is the name of another issuer, consumer or consumer's key too; each must be there once";
        Err(document.error(&key, message))
    };
    for (issuer, index) in auth.issuers.iter().zip(0..) {
        let key = format!("auth.issuers[{index}]");
        once(&issuer.issuer, format!("{key}.issuer"))?;
        if issuer.jwks_file.is_some() == issuer.jwks_url.is_some() {
            return Err(document.error(&key, "needs one of \"jwks_url\" and \"jwks_file\""));
        }
        if issuer.jwks_file.is_some() && issuer.jwks_ca_file.is_some() {
            let message = "has no meaning with jwks_file; remove it";
            return Err(document.error(&format!("{key}.jwks_ca_file"), message));
        }
        for (role, index) in issuer.roles.iter().zip(0..) {
            if role.equals.is_some() == role.contains.is_some() {
                let key = format!("{key}.roles[{index}]");
                return Err(document.error(&key, "needs one of \"equals\" and \"contains\""));
            }
        }
    }
    for (consumer, index) in auth.consumers.iter().zip(0..) {
        let key = format!("auth.consumers[{index}]");
        once(&consumer.name, format!("{key}.name"))?;
        match (&consumer.key, &consumer.secret_file) {
            (Some(own), Some(_)) if *own == consumer.name => {}
            (Some(own), Some(_)) => once(own, format!("{key}.key"))?,
            (None, None) => {}
            _ => {
                return Err(
                    document.error(&key, "needs both of \"key\" and \"secret_file\", or none")
                );
            }
        }
    }
    for (own, index) in auth.api_keys.iter().zip(0..) {
        if !auth
            .consumers
            .iter()
            .any(|consumer| consumer.name == own.consumer)
        {
            let key = format!("auth.api_keys[{index}].consumer");
            return Err(document.error(&key, "is the name of no consumer in auth.consumers"));
        }
    }
    Ok(())
}

/// Where identities are Consul's, policies know a service by its name in all datacenters alike; see `consul::names`.
fn consul(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let identity = &config.identity;
    if identity.source != IdentitySource::Consul {
        return Ok(());
    }
    for (rule, index) in config.policy.rules.iter().zip(0..) {
        let is_never_seen = |from: &String| {
            is_never_seen(from)
                && identity
                    .configured_trust_domain()
                    .is_none_or(|own| from.starts_with(&format!("spiffe://{own}/")))
        };
        if let Some(at) = rule.from.iter().position(is_never_seen) {
            let key = format!("policy.rules[{index}].from[{at}]");
            let message = "names a datacenter, which policies do not see; write the service's name alone, \
                           which means it in all datacenters";
            return Err(document.error(&key, message));
        }
    }
    Ok(())
}

fn authority(identity: &IdentityConfig, document: &Document) -> Result<(), ConfigError> {
    if identity.ca_url.is_some() && identity.source != IdentitySource::Builtin {
        let message = "has no meaning without `source: builtin`";
        return Err(document.error("identity.ca_url", message));
    }
    if identity.join_token_file.is_some() && identity.ca_url.is_none() {
        let message = "has no meaning without `ca_url`";
        return Err(document.error("identity.join_token_file", message));
    }
    Ok(())
}

fn identity(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let identity = &config.identity;
    if identity.source != IdentitySource::Consul {
        if identity.configured_trust_domain().is_none() {
            let message = "the required key \"trust_domain\" is missing";
            return Err(document.error("identity", message));
        }
        if identity.consul.is_some() {
            let message = "has no meaning without `source: consul`; remove it or change the source";
            return Err(document.error("identity.consul", message));
        }
    }
    authority(identity, document)?;
    let files = [
        ("cert_file", &identity.cert_file),
        ("key_file", &identity.key_file),
        ("ca_file", &identity.ca_file),
    ];
    let folder = [("ca_dir", &identity.ca_dir)];
    let socket = [("workload_api_socket", &identity.workload_api_socket)];
    let served = [("ca_dir", &identity.ca_dir), ("ca_file", &identity.ca_file)];
    let (pair, _) = files.split_at(2);
    let (source, needed, unused) = match identity.source {
        IdentitySource::Files => ("files", &files[..], [&folder[..], &socket, &[]]),
        IdentitySource::WorkloadApi => ("workload_api", &socket[..], [&files[..], &folder, &[]]),
        IdentitySource::Builtin if identity.ca_url.is_some() => {
            ("builtin", &served[..], [pair, &socket, &[]])
        }
        IdentitySource::Builtin => ("builtin", &folder[..], [&files[..], &socket, &[]]),
        IdentitySource::Consul => ("consul", &[][..], [&files[..], &folder, &socket]),
    };
    let mut unused = unused.into_iter().flatten();
    if let Some((key, _)) = needed.iter().find(|(_, path)| path.is_none()) {
        let message = format!("the required key \"{key}\" is missing; `source: {source}` needs it");
        return Err(document.error("identity", message));
    }
    if let Some((key, _)) = unused.find(|(_, path)| path.is_some()) {
        let message =
            format!("has no meaning with `source: {source}`; remove it or change the source");
        return Err(document.error(&format!("identity.{key}"), message));
    }
    other_domains(identity, document)?;
    let own = format!("spiffe://{}/", identity.trust_domain);
    match &config.service.spiffe_id {
        Some(id) if !id.starts_with(&own) && identity.configured_trust_domain().is_some() => {
            let message = format!(
                "{id:?} is not in the trust domain {}; it must begin with {own}",
                identity.trust_domain
            );
            Err(document.error("service.spiffe_id", message))
        }
        _ => Ok(()),
    }
}

/// Every trust domain has one bundle, and an alias is a trust domain with a bundle of its own.
fn other_domains(identity: &IdentityConfig, document: &Document) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::from([identity.trust_domain.as_str()]);
    for (index, entry) in identity.federation.iter().enumerate() {
        if !seen.insert(&entry.trust_domain) {
            let key = format!("identity.federation[{index}].trust_domain");
            let message =
                "has its roots already; a trust domain stands here once, and our own not at all";
            return Err(document.error(&key, message));
        }
    }
    let comes_with_source = identity.source == IdentitySource::WorkloadApi;
    for (index, alias) in identity.trust_domain_aliases.iter().enumerate() {
        let key = format!("identity.trust_domain_aliases[{index}]");
        if *alias == identity.trust_domain {
            return Err(document.error(&key, "is our own trust domain"));
        }
        if !comes_with_source && !seen.contains(alias.as_str()) {
            let message = format!("{alias:?} has no roots here; add it to identity.federation");
            return Err(document.error(&key, message));
        }
    }
    Ok(())
}

/// Two listeners can't share an address; the system would say so only once the node starts.
fn addresses(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let mut listeners = vec![
        ("service.listen".to_owned(), config.service.listen),
        ("outbound.listen".to_owned(), config.outbound.listen),
        ("admin.listen".to_owned(), config.admin.listen),
    ];
    if let Some(service) = &config.rate_limit_service {
        listeners.push(("rate_limit_service.listen".to_owned(), service.listen));
    }
    for (index, tcp) in config.service.tcp.iter().enumerate() {
        listeners.push((format!("service.tcp[{index}].listen"), tcp.listen));
    }
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

/// Reports, the registration and rules of trust name a source.
fn source_names(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::from([STATIC]);
    for (source, index) in config.discovery.sources.iter().zip(0..) {
        let Some(name) = source.name() else { continue };
        reached(source, (index, document))?;
        if name.is_empty() || !seen.insert(name) {
            let message = format!("{name:?} is taken; give each source a name of its own");
            return Err(document.error(&format!("discovery.sources[{index}].name"), message));
        }
    }
    Ok(())
}

/// Where this node registers, and at which address.
fn registration(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    let Some(register) = &config.discovery.register else {
        return Ok(());
    };
    let sources = &config.discovery.sources;
    let writable = || sources.iter().filter(|source| source.is_writable());
    for (name, index) in register.sources.iter().zip(0..) {
        if !writable().any(|source| source.name() == Some(name)) {
            let key = format!("discovery.register.in[{index}]");
            let message = format!("{name:?} is the name of no source that nodes can register in");
            return Err(document.error(&key, message));
        }
    }
    if writable().next().is_none() {
        let message = "needs a source that nodes can register in, of the mode consul or etcd";
        return Err(document.error("discovery.register", message));
    }
    if register.host.is_none() && config.service.listen.ip().is_unspecified() {
        let message = "the key \"host\" is missing: service.listen does not say at which address other nodes reach us";
        return Err(document.error("discovery.register", message));
    }
    Ok(())
}

/// What a source needs, and what excludes each other.
fn reached(
    source: &SourceConfig,
    (index, document): (usize, &Document),
) -> Result<(), ConfigError> {
    let (secrets, files) = match source {
        SourceConfig::Consul(consul) => (
            (
                "token",
                consul.token.is_some() && consul.token_file.is_some(),
            ),
            (&consul.cert_file, &consul.key_file),
        ),
        SourceConfig::Etcd(etcd) => (
            (
                "password",
                etcd.password.is_some() && etcd.password_file.is_some(),
            ),
            (&etcd.cert_file, &etcd.key_file),
        ),
        SourceConfig::Xds(xds) => (("token", false), (&xds.cert_file, &xds.key_file)),
        _ => return Ok(()),
    };
    let key = |key: &str| format!("discovery.sources[{index}].{key}");
    if let (name, true) = secrets {
        let message = format!("and {name}_file exclude each other; remove one of them");
        return Err(document.error(&key(name), message));
    }
    if files.0.is_some() != files.1.is_some() {
        let message = "needs both of \"cert_file\" and \"key_file\", or none";
        return Err(document.error(&format!("discovery.sources[{index}]"), message));
    }
    if let SourceConfig::Xds(xds) = source
        && xds.servers.is_empty()
    {
        return Err(document.error(&key("servers"), "names no control plane"));
    }
    if let SourceConfig::Etcd(etcd) = source {
        let has_password = etcd.password.is_some() || etcd.password_file.is_some();
        if etcd.username.is_some() != has_password {
            let message = "needs both of \"username\" and a password, or none";
            return Err(document.error(&format!("discovery.sources[{index}]"), message));
        }
        if etcd.endpoints.is_empty() {
            return Err(document.error(&key("endpoints"), "names no member of etcd"));
        }
    }
    Ok(())
}

fn endpoints(config: &NodeConfig, document: &Document) -> Result<(), ConfigError> {
    for (number, source) in config.discovery.sources.iter().enumerate() {
        let SourceConfig::Static(list) = source else {
            continue;
        };
        let mut seen = BTreeSet::new();
        for (index, endpoint) in list.services.iter().enumerate() {
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

/// What endpoints of the configuration are said to come from.
const STATIC: &str = "static";
/// Callers that only a credential of a user can match.
const USERS: [&str; 5] = ["group:", "role:", "claim:", "issuer:", "subject:"];
