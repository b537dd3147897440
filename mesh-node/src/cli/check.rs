//! `mesh-node check`: builds everything that a configuration describes, and opens nothing.

mod lint;
mod routes;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::policy::Policy;
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::svid;
use mesh_resilience::limit::rls::Rules;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use serde_json::Value;
use serde_json::json;

pub(super) use self::lint::surroundings;
use super::Context;
use super::ca;
use super::files;
use super::keys;
use super::report::Failure;
use super::report::Report;
use crate::adapt::policy::Located;
use crate::adapt::policy::scope_of;
use crate::ca_service::client::CaClient;
use crate::config::Document;
use crate::config::Encryption;
use crate::config::IdentitySource;
use crate::config::NodeConfig;
use crate::config::PolicyDefault;
use crate::config::RateLimitStoreConfig;
use crate::config::SecurityMode;
use crate::config::doubts;
use crate::consul::identity::Consul;
use crate::discovery::own::Own;
use crate::discovery::sources::sources;
use crate::error::Error;
use crate::policy_store::PolicyStore;
use crate::service_token;
use crate::telemetry::Telemetry;

/// What was checked, and what is worth a second look.
#[derive(Default)]
struct Findings {
    checked: Vec<(&'static str, String)>,
    warnings: Vec<String>,
}

pub(super) fn run(path: &Path, context: &Context) -> Result<Report, Failure> {
    Ok(look(path, context)?.report(path))
}

/// As [`run`], but a warning is a failure too.
pub(super) fn strictly(path: &Path, context: &Context) -> Result<Report, Failure> {
    let findings = look(path, context)?;
    let is_clean = findings.warnings.is_empty();
    Ok(findings.report(path).that_holds(is_clean))
}

fn look(path: &Path, context: &Context) -> Result<Findings, Failure> {
    let document = Document::read(path, &context.environment)?;
    let config = document.config()?;
    let mut findings = Findings::default();
    findings.checked.push((
        "service",
        format!("{}, on {}", config.spiffe_id(), config.service.listen),
    ));
    identity(&config, &document, context, &mut findings)?;
    policy(&config, &document, context, &mut findings)?;
    tokens(&config, &document, &mut findings)?;
    tcp(&config, &mut findings);
    discovery(&config, &document, &mut findings)?;
    rate_limit(&config, &document, &mut findings)?;
    identity_keys(&config, &document, &mut findings)?;
    rate_limits(&config, &mut findings);
    Ok(findings)
}

impl Findings {
    fn report(self, path: &Path) -> Report {
        let mut lines = vec![format!("{} is valid", path.display())];
        lines.extend(
            self.checked
                .iter()
                .map(|(what, found)| format!("  {what:<10} {found}")),
        );
        lines.extend(
            self.warnings
                .iter()
                .map(|warning| format!("warning: {warning}")),
        );
        let checked: serde_json::Map<String, Value> = self
            .checked
            .into_iter()
            .map(|(what, found)| (what.to_owned(), Value::String(found)))
            .collect();
        Report::new(
            lines.join("\n"),
            json!({ "ok": true, "file": path, "checked": checked, "warnings": self.warnings }),
        )
    }

    fn expose(&mut self, what: &str, path: &Path) {
        if files::is_exposed(path) {
            self.warnings.push(format!(
                "{what} {} can be read by others than its owner (chmod 600)",
                path.display()
            ));
        }
    }
}

/// Certificate, key and roots: they are read, belong together, and pass the very check that peers will make.
fn identity(
    config: &NodeConfig,
    document: &Document,
    context: &Context,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let settings = &config.identity;
    match (
        settings.source,
        &settings.cert_file,
        &settings.key_file,
        &settings.ca_file,
        &settings.ca_dir,
    ) {
        (IdentitySource::Files, Some(cert), Some(key), Some(ca), _) => {
            let texts = (files::read(cert), files::read(key), files::read(ca));
            let chain = texts
                .0
                .map_err(|failure| failure.at(document, "identity.cert_file"))?;
            let secret = texts
                .1
                .map_err(|failure| failure.at(document, "identity.key_file"))?;
            kept(key, document, "identity.key_file")?;
            let roots = texts
                .2
                .map_err(|failure| failure.at(document, "identity.ca_file"))?;
            verify(
                config,
                document,
                context,
                (&chain, &secret, &roots),
                findings,
            )
        }
        (IdentitySource::Builtin, _, _, Some(ca), Some(dir)) => {
            served(config, document, (ca, dir), findings)
        }
        (IdentitySource::Builtin, _, _, _, Some(dir)) => {
            let key = "identity.ca_dir";
            let roots = ca::read(dir).map_err(|failure| failure.at(document, key))?;
            let authority = roots.signer();
            kept(&dir.join("ca.key"), document, key)?;
            if authority.trust_domain().as_str() != settings.trust_domain {
                let message = format!(
                    "the authority there is of the trust domain {}",
                    authority.trust_domain()
                );
                return Err(document.error(key, message).into());
            }
            let id = mesh_auth::spiffe::SpiffeId::parse(&config.spiffe_id()).map_err(|error| {
                Failure::because(document.error("service", "has no usable SPIFFE id"), error)
            })?;
            let issued = authority
                .issue(&id, settings.certificate_lifetime, context.now, &[])
                .map_err(|error| {
                    Failure::because(
                        document.error(key, "the authority there can't issue"),
                        error,
                    )
                })?;
            let texts = (
                &*issued.certificate_pem,
                &**issued.key_pem,
                &*roots.certificates_pem(),
            );
            verify(config, document, context, texts, findings)
        }
        (IdentitySource::WorkloadApi, ..) => {
            let socket = settings.workload_api_socket.as_deref();
            let socket = socket.unwrap_or(Path::new("")).display();
            findings.checked.push((
                "identity",
                format!("from the Workload API at {socket}, which is asked at the start"),
            ));
            Ok(())
        }
        (IdentitySource::Consul, ..) => consul(config, document, findings),
        // `Document::config` has refused it.
        _ => Err(document.error("identity", "is not complete").into()),
    }
}

/// Consul is not asked here; what the node needs to ask it is.
fn consul(
    config: &NodeConfig,
    document: &Document,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let random = Arc::new(|| 0);
    Consul::new(config, random).map_err(|error| {
        Failure::because(document.error("identity.consul", "is not usable"), error)
    })?;
    let consul = config.identity.consul.as_ref();
    if let Some(token) = consul.and_then(|consul| consul.token_file.as_deref()) {
        let key = "identity.consul.token_file";
        files::read(token).map_err(|failure| failure.at(document, key))?;
        findings.expose("the token in", token);
    }
    let found = "is asked of consul when the node starts".to_owned();
    findings.checked.push(("identity", found));
    Ok(())
}

/// The authority is asked when the node runs; what it is believed by is read now.
fn served(
    config: &NodeConfig,
    document: &Document,
    (ca, dir): (&Path, &Path),
    findings: &mut Findings,
) -> Result<(), Failure> {
    let url = config.identity.ca_url.as_deref().unwrap_or_default();
    CaClient::new(config, url).map_err(|error| {
        Failure::because(document.error("identity.ca_url", "is not usable"), error)
    })?;
    let key = "identity.ca_file";
    let roots = files::read(ca).map_err(|failure| failure.at(document, key))?;
    let roots = certificates(roots.as_bytes()).map_err(|error| {
        Failure::because(document.error(key, "the roots are not usable"), error)
    })?;
    if let Some(token) = &config.identity.join_token_file {
        findings.expose("the join token", token);
    }
    let found = format!(
        "from the authority at {url}, believed by {} root(s), kept in {}",
        roots.len(),
        dir.display()
    );
    findings.checked.push(("identity", found));
    Ok(())
}

/// The node refuses a key that others may read, so its check does.
fn kept(path: &Path, document: &Document, key: &str) -> Result<(), Failure> {
    let read = crate::identity::read_key(path);
    let error = |error: Error| document.error(key, error.to_string());
    Ok(read.map(drop).map_err(error)?)
}

fn verify(
    config: &NodeConfig,
    document: &Document,
    context: &Context,
    (chain, secret, roots): (&str, &str, &str),
    findings: &mut Findings,
) -> Result<(), Failure> {
    let wrong = |key: &str, message: &str| document.error(key, message);
    let credentials =
        Credentials::from_pem(chain.as_bytes(), secret.as_bytes()).map_err(|error| {
            Failure::because(
                wrong("identity.cert_file", "certificate and key are not usable"),
                error,
            )
        })?;
    let roots = certificates(roots.as_bytes()).map_err(|error| {
        Failure::because(wrong("identity.ca_file", "the roots are not usable"), error)
    })?;
    let bundles = TrustBundles::new()
        .with_domain(&config.identity.trust_domain, &roots)
        .map_err(|error| {
            Failure::because(wrong("identity.ca_file", "the roots are not usable"), error)
        })?;
    let unfit = |error| {
        Failure::because(
            wrong("identity.cert_file", "peers would refuse the certificate"),
            error,
        )
    };
    let (shown, statement) = (
        credentials.chain().to_vec(),
        credentials.sign(STATEMENT).map_err(unfit)?,
    );
    let store = TlsStore::new(
        Arc::new(SpiffeLeaf::new()),
        Arc::new(At(context.now)),
        credentials,
        bundles,
    )
    .map_err(unfit)?;
    let peer = store
        .verify_signed(&shown, STATEMENT, &statement)
        .map_err(unfit)?;
    if peer.as_str() != config.spiffe_id() {
        let message = format!(
            "the certificate is of {}, not of {}",
            peer.as_str(),
            config.spiffe_id()
        );
        return Err(document.error("identity.cert_file", message).into());
    }
    let facts = shown.first().map(|leaf| svid::inspect(leaf)).transpose();
    let facts = facts.map_err(|error| {
        Failure::because(
            wrong("identity.cert_file", "could not read the certificate"),
            error,
        )
    })?;
    let Some(facts) = facts else { return Ok(()) };
    let until = humantime::format_rfc3339_seconds(facts.not_after);
    let found = match config.identity.source {
        IdentitySource::Files => format!("certificate until {until}, {} root(s)", roots.len()),
        IdentitySource::Builtin => {
            let lifetime = humantime::format_duration(config.identity.certificate_lifetime);
            format!("certificates of {lifetime} from the built-in authority")
        }
        IdentitySource::WorkloadApi => "from the Workload API".to_owned(),
        IdentitySource::Consul => format!("certificate until {until}"),
    };
    findings.checked.push(("identity", found));
    let left = facts
        .not_after
        .duration_since(context.now)
        .unwrap_or_default();
    if config.identity.source == IdentitySource::Files && left < SOON {
        findings.warnings.push(format!(
            "the certificate ends at {until}; replace it before"
        ));
    }
    Ok(())
}

fn policy(
    config: &NodeConfig,
    document: &Document,
    context: &Context,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let domain = TrustDomain::parse(config.identity.trust_domain()).map_err(|error| {
        Failure::because(
            document.error("identity.trust_domain", "is not usable"),
            error,
        )
    })?;
    let store = PolicyStore::new(&config.policy, Vec::new(), scope_of(config, &domain)).map_err(
        |fault| {
            let Located { place, source } = fault.located(config, document);
            Failure::because(place, source)
        },
    )?;
    let built = &store.current().live;
    let default = match config.policy.default {
        PolicyDefault::Deny => "deny",
        PolicyDefault::Audit => "audit",
    };
    let shadow = store.current().shadow.as_ref().map(Policy::len);
    let shadow = shadow.map_or(String::new(), |rules| {
        format!(", shadow of {rules} rule(s)")
    });
    findings.checked.push((
        "policy",
        format!("{} rule(s), default {default}{shadow}", built.len()),
    ));
    if built.is_empty()
        && config.policy.default == PolicyDefault::Deny
        && config.service.app.is_some()
    {
        findings
            .warnings
            .push("policy.rules is empty: every call to this service will be refused".to_owned());
    }
    if config.security.mode == SecurityMode::Permissive {
        findings.warnings.push(format!(
            "security.mode is permissive: {} takes plaintext from whoever reaches it",
            config.service.listen
        ));
    }
    if config.policy.default == PolicyDefault::Audit {
        findings
            .warnings
            .push("policy.default is audit: calls that no rule allows will pass".to_owned());
    }
    lint::look(config, &domain, (document, context), findings)
}

fn tokens(
    config: &NodeConfig,
    document: &Document,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let found = match &config.auth.jwt {
        None => "none".to_owned(),
        Some(jwt) => {
            service_token::ring(jwt).map_err(|error| {
                Failure::because(document.error("auth.jwt", "is not usable"), error)
            })?;
            if let Some(file) = &jwt.secret_file {
                findings.expose("the token secret", file);
            }
            format!(
                "HS256, issuer {}, valid {}",
                config.token_issuer(),
                humantime::format_duration(jwt.token_expiry)
            )
        }
    };
    findings.checked.push(("tokens", found));
    Ok(())
}

/// Who reads that tokens and sessions are on may think that they are everywhere.
fn tcp(config: &NodeConfig, findings: &mut Findings) {
    let is_hybrid = config.security.encryption == Encryption::Hybrid;
    let absent = match (config.auth.jwt.is_some(), is_hybrid) {
        (true, true) => "no service token (auth.jwt) and no session (security.encryption: hybrid)",
        (true, false) => "no service token (auth.jwt)",
        (false, true) => "no session (security.encryption: hybrid)",
        (false, false) => return,
    };
    for served in &config.service.tcp {
        findings.warnings.push(format!(
            "service.tcp on {}: a caller's certificate alone is its proof; there is {absent} on this port",
            served.listen
        ));
    }
}

/// The store is not asked here; what the node needs to ask it is.
fn rate_limit(
    config: &NodeConfig,
    document: &Document,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let Some(limit) = &config.resilience.rate_limit else {
        return Ok(());
    };
    let random: Arc<dyn mesh_resilience::random::Random> = Arc::new(|| 0);
    let told = (&Arc::default(), &Telemetry::new().limit);
    crate::node::build::limit::rate_limit(config, &random, told).map_err(|error| {
        Failure::because(
            document.error("resilience.rate_limit", "is not usable"),
            error,
        )
    })?;
    let counted = match &limit.store {
        Some(RateLimitStoreConfig::Redis(redis)) => format!("by Redis at {}", redis.url),
        Some(RateLimitStoreConfig::Rls(rls)) => {
            format!("by the rate limit service at {}", rls.address)
        }
        None => "by each node".to_owned(),
    };
    let (windows, bucket) = (limit.rates.windows.len(), limit.rates.bucket.is_some());
    let bucket = if bucket { " and a bucket" } else { "" };
    let found = format!("{windows} window(s){bucket} a caller, counted {counted}");
    findings.checked.push(("rate limit", found));
    Ok(())
}

/// No registry is asked here; what the node needs to ask it is.
fn discovery(
    config: &NodeConfig,
    document: &Document,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut unkept = config.clone();
    unkept.discovery.cache.enabled = false;
    let random: Arc<dyn mesh_resilience::random::Random> = Arc::new(|| 0);
    let built =
        sources(&unkept, &Own::new(&unkept), &random, &Arc::default()).map_err(|error| {
            Failure::because(document.error("discovery.sources", "is not usable"), error)
        })?;
    let endpoints: Vec<&str> = config
        .discovery
        .static_endpoints()
        .map(|found| found.id.as_str())
        .collect();
    let services: BTreeSet<&str> = endpoints.iter().copied().collect();
    findings.checked.push((
        "discovery",
        format!(
            "{} endpoint(s) of {} service(s){}",
            endpoints.len(),
            services.len(),
            asked(config)
        ),
    ));
    for upstream in &config.outbound.upstreams {
        if !built.looks_up && !services.contains(upstream.service.as_str()) {
            let message = format!(
                "outbound.upstreams names {}, which no source of discovery knows",
                upstream.service
            );
            findings.warnings.push(message);
        }
    }
    let sources = config.discovery.sources.iter();
    findings.warnings.extend(sources.flat_map(doubts::doubts));
    // What a registry knows is not asked here.
    let known = (!built.looks_up).then_some(&services);
    routes::look(config, (document, known), findings)
}

/// The sources that are asked when the node runs.
fn asked(config: &NodeConfig) -> String {
    let sources = config.discovery.sources.iter();
    let names: Vec<&str> = sources.filter_map(|source| source.name()).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("; {} is asked when the node runs", names.join(", "))
    }
}

fn identity_keys(
    config: &NodeConfig,
    document: &Document,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let dir = &config.security.keys_dir;
    let found = if dir.exists() {
        let keys = keys::list(dir).map_err(|failure| failure.at(document, "security.keys_dir"))?;
        format!("{} in {}", keys.len(), dir.display())
    } else {
        format!("none yet; made in {} at the first start", dir.display())
    };
    findings.checked.push(("keys", found));
    Ok(())
}

/// Their rules were read with the configuration, which has refused those that can't be.
fn rate_limits(config: &NodeConfig, findings: &mut Findings) {
    let Some(service) = &config.rate_limit_service else {
        return;
    };
    let rules = Rules::new(&service.domains);
    let names: Vec<_> = service
        .domains
        .iter()
        .map(|config| config.domain.as_str())
        .collect();
    let found = format!(
        "{} descriptor(s) of {}, on {}",
        rules.map_or(0, |rules| rules.len()),
        names.join(", "),
        service.listen
    );
    findings.checked.push(("rate limits", found));
    for (domain, file) in service.domains.iter().zip(&service.files) {
        for key in domain.ignored() {
            let message = format!("{}: {key} has no effect here", file.display());
            findings.warnings.push(message);
        }
    }
}

/// A clock that stands still: the whole check is about one moment.
#[derive(Debug)]
struct At(SystemTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        self.0
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .map(UnixTime::since_unix_epoch)
    }
}

/// What the node signs to itself, to see whether peers would believe it.
const STATEMENT: &[u8] = b"mesh-node check";
/// Certificates from files that end within a day are worth a warning.
const SOON: Duration = Duration::from_hours(24);
