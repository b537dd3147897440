//! The configuration: one YAML file, environment variables over it, and one message that names file, line and key when
//! something is wrong.
//!
//! The file becomes a tree in which every value knows its place (`tree`), `${VARIABLES}` are put into values and never
//! into keys (`expand`), environment variables replace keys (`environment`), and serde fills the structs from that
//! tree (`decode`), so that every error can say where it is. What no type can say is checked last (`rules`).
//!
//! Paths in the file are relative to the file's folder.

mod auth;
mod consul;
mod decode;
mod discovery;
mod environment;
mod error;
mod expand;
mod expectations;
mod health_check;
mod identity;
mod observe;
mod policy;
mod policy_file;
mod rate_limit_service;
mod resilience;
mod route;
mod rules;
mod secrets;
mod security;
mod service;
mod session;
mod tree;
mod value;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

pub use self::auth::ApiKeyConfig;
pub use self::auth::AuthConfig;
pub use self::auth::ConsumerConfig;
pub use self::auth::IssuerConfig;
pub use self::auth::JwtConfig;
pub use self::auth::JwtSecretConfig;
pub use self::auth::RoleConfig;
pub use self::consul::ConsulConfig;
pub use self::discovery::CacheConfig;
pub use self::discovery::Combine;
pub use self::discovery::ConsulSourceConfig;
pub use self::discovery::DiscoveryConfig;
pub use self::discovery::DnsSourceConfig;
pub use self::discovery::EndpointConfig;
pub use self::discovery::EtcdSourceConfig;
pub use self::discovery::FileSourceConfig;
pub use self::discovery::OnStart;
pub use self::discovery::RegisterCheck;
pub use self::discovery::RegisterConfig;
pub use self::discovery::SourceConfig;
pub use self::discovery::StaticConfig;
pub use self::discovery::WithdrawalConfig;
pub use self::discovery::XdsSourceConfig;
pub use self::discovery::XdsVariant;
pub(crate) use self::discovery::doubts;
pub use self::error::ConfigError;
pub use self::error::Place;
pub(crate) use self::expectations::ExpectedUser;
pub(crate) use self::expectations::ExpectedVerdict;
pub(crate) use self::expectations::TestConfig;
pub(crate) use self::expectations::TestDocument;
pub use self::health_check::HealthCheckConfig;
pub use self::health_check::HealthProtocol;
pub use self::identity::FederationConfig;
pub use self::identity::IdentityConfig;
pub use self::identity::IdentitySource;
pub(crate) use self::identity::Learnt;
pub use self::identity::WorkloadApiConfig;
pub use self::observe::AccessLogConfig;
pub use self::observe::AdminConfig;
pub use self::observe::AuditConfig;
pub use self::observe::AuditEvent;
pub use self::observe::Durability;
pub use self::observe::LogConfig;
pub use self::observe::LogLevel;
pub use self::observe::MetricsConfig;
pub use self::policy::PolicyConfig;
pub use self::policy::PolicyDefault;
pub use self::policy::RuleAction;
pub use self::policy::RuleConfig;
pub use self::policy::RuleTarget;
pub use self::policy_file::PolicyDocument;
pub use self::rate_limit_service::RateLimitServiceConfig;
pub use self::resilience::Backoff;
pub use self::resilience::BalancingPolicy;
pub use self::resilience::BulkheadConfig;
pub use self::resilience::CallerLimitConfig;
pub use self::resilience::CircuitBreakerConfig;
pub use self::resilience::DescriptorEntry;
pub use self::resilience::EntrySource;
pub use self::resilience::HashOnConfig;
pub use self::resilience::HedgeConfig;
pub use self::resilience::LoadBalancingConfig;
pub use self::resilience::LoadSheddingConfig;
pub use self::resilience::OutlierEjectionConfig;
pub use self::resilience::OutlierFailureRateConfig;
pub use self::resilience::OutlierSuccessRateConfig;
pub use self::resilience::RateBucket;
pub use self::resilience::RateLimitConfig;
pub use self::resilience::RateLimitStoreConfig;
pub use self::resilience::RateWindow;
pub use self::resilience::RedisStoreConfig;
pub use self::resilience::ResilienceConfig;
pub use self::resilience::RetryConfig;
pub use self::resilience::RlsStoreConfig;
pub use self::resilience::RlsWhenAway;
pub use self::resilience::SafeWritesConfig;
pub use self::resilience::SlowCallsConfig;
pub use self::resilience::SlowStartConfig;
pub use self::resilience::SuccessRateConfig;
pub use self::resilience::WhenAway;
pub use self::resilience::ZoneAwareConfig;
pub use self::route::AbortConfig;
pub use self::route::DelayConfig;
pub use self::route::FallbackConfig;
pub use self::route::FaultConfig;
pub use self::route::FieldMatchConfig;
pub use self::route::FixedAnswerConfig;
pub use self::route::HeaderEditsConfig;
pub use self::route::MirrorConfig;
pub use self::route::Percent;
pub use self::route::RedirectConfig;
pub use self::route::RewriteConfig;
pub use self::route::RouteConfig;
pub use self::route::RouteMatchConfig;
pub use self::route::RouteTargetConfig;
pub use self::route::StaleAnswerConfig;
pub use self::route::StickyConfig;
pub use self::route::StickyCookieConfig;
pub use self::route::SubsetConfig;
pub use self::security::AesKeySize;
pub use self::security::Alpn;
pub use self::security::Encryption;
pub use self::security::HandshakesConfig;
pub use self::security::RsaKeySize;
pub use self::security::SecurityConfig;
pub use self::security::SecurityMode;
pub use self::service::DrainConfig;
pub use self::service::OutboundConfig;
pub use self::service::RuntimeConfig;
pub use self::service::ServiceConfig;
pub use self::service::TcpConfig;
pub use self::service::UpstreamConfig;
pub use self::service::UpstreamProtocol;
pub use self::session::KeyRotationConfig;
pub use self::session::PostQuantum;
pub use self::session::RecordMac;
pub use self::value::HostPort;
pub use self::value::SecretText;
pub(crate) use self::value::is_service_name;

use self::policy_file::PolicyFiles;
use self::tree::Node;

/// The environment that the configuration sees: a map, so that nothing here reads the process's own.
pub type Environment = BTreeMap<String, String>;

/// Everything that a node is told.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The service that this node stands beside. Required.
    pub service: ServiceConfig,
    /// What the local application calls through this node.
    #[serde(default)]
    pub outbound: OutboundConfig,
    /// How this node proves who it is. Required.
    pub identity: IdentityConfig,
    /// The SPIFFE Workload API for programs on this machine. Absent: none is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WorkloadApiConfig")]
    pub workload_api: Option<WorkloadApiConfig>,
    /// Envoy's rate limit service, for Envoys and other nodes. Absent: none is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateLimitServiceConfig")]
    pub rate_limit_service: Option<RateLimitServiceConfig>,
    /// How messages between nodes are protected.
    #[serde(default)]
    pub security: SecurityConfig,
    /// Tokens.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Where services are.
    #[serde(default)]
    pub discovery: DiscoveryConfig,
    /// What keeps calls alive when something breaks.
    #[serde(default)]
    pub resilience: ResilienceConfig,
    /// How calls of the local application are carried; the first route that matches one takes it. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// Who may call what. Without rules nobody may.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// The tamper-evident audit log.
    #[serde(default)]
    pub audit: AuditConfig,
    /// One line for each request.
    #[serde(default)]
    pub access_log: AccessLogConfig,
    /// Metrics for Prometheus.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// The admin listener.
    #[serde(default)]
    pub admin: AdminConfig,
    /// The node's own log.
    #[serde(default)]
    pub log: LogConfig,
    /// How the node stops.
    #[serde(default)]
    pub drain: DrainConfig,
    /// The async runtime.
    #[serde(default)]
    pub runtime: RuntimeConfig,
}

impl NodeConfig {
    /// The service `id` with `identity`, all else default. Paths are relative to the working directory.
    pub fn new(id: &str, identity: IdentityConfig) -> Self {
        Self {
            service: ServiceConfig::new(id),
            outbound: OutboundConfig::default(),
            identity,
            workload_api: None,
            rate_limit_service: None,
            security: SecurityConfig::default(),
            auth: AuthConfig::default(),
            discovery: DiscoveryConfig::default(),
            resilience: ResilienceConfig::default(),
            routes: Vec::new(),
            policy: PolicyConfig::default(),
            audit: AuditConfig::default(),
            access_log: AccessLogConfig::default(),
            metrics: MetricsConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            drain: DrainConfig::default(),
            runtime: RuntimeConfig::default(),
        }
    }

    /// Reads the file at `path`, with `environment` for its variables and over its keys.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong: an unreadable file, broken YAML, an unknown key, a value that is not allowed.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        Document::read(path, environment)?.config()
    }

    /// This node's SPIFFE id: the configured one, else what Consul says where it was asked, else
    /// `spiffe://<trust_domain>/<id>`.
    pub fn spiffe_id(&self) -> String {
        let learnt = self.identity.learnt.as_ref().map(|learnt| &learnt.id);
        let said = self.service.spiffe_id.as_ref().or(learnt);
        said.cloned()
            .unwrap_or_else(|| self.spiffe_id_of(&self.service.id))
    }

    /// The SPIFFE id that `service` has unless something says otherwise: that of `discovery.identities`, else
    /// `spiffe://<trust_domain>/<service>`, and where identities are Consul's
    /// `spiffe://<trust_domain>/ns/default/dc/<datacenter>/svc/<service>`.
    pub fn spiffe_id_of(&self, service: &str) -> String {
        self.expected_ids().of(service)
    }

    pub(crate) fn expected_ids(&self) -> ExpectedIds {
        let learnt = self.identity.learnt.as_ref();
        ExpectedIds {
            trust_domain: self.identity.trust_domain().to_owned(),
            datacenter: learnt.map(|learnt| learnt.datacenter.clone()),
            said: self.discovery.identities.clone(),
        }
    }

    /// The SPIFFE id of `security.probe`.
    pub(crate) fn prober_id(&self) -> Option<String> {
        let probe = self.security.probe.as_deref()?;
        Some(if probe.contains("://") {
            probe.to_owned()
        } else {
            self.spiffe_id_of(probe)
        })
    }

    /// `iss` of the tokens that this node issues and accepts: the configured one, else the trust domain.
    pub fn token_issuer(&self) -> &str {
        let configured = self.auth.jwt.as_ref().and_then(|jwt| jwt.issuer.as_deref());
        configured.unwrap_or(self.identity.trust_domain())
    }

    /// What the admin listener shows: every value, secrets redacted.
    pub fn redacted(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The JSON schema of the file.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Makes every relative path start at `base`.
    fn resolve_paths(&mut self, base: &Path) {
        let identity = &mut self.identity;
        let optional = [
            &mut identity.cert_file,
            &mut identity.key_file,
            &mut identity.ca_file,
            &mut identity.ca_dir,
            &mut identity.workload_api_socket,
            &mut identity.join_token_file,
        ];
        let mut paths: Vec<&mut PathBuf> = optional.into_iter().flatten().collect();
        if let Some(jwt) = &mut self.auth.jwt {
            paths.extend(&mut jwt.secret_file);
            paths.extend(jwt.secrets.iter_mut().map(|secret| &mut secret.secret_file));
        }
        let consul = identity.consul.iter_mut().chain(&mut self.policy.consul);
        paths.extend(consul.flat_map(ConsulConfig::paths));
        paths.extend(&mut self.policy.rules_file);
        paths.extend(&mut self.policy.shadow_file);
        let issuers = self.auth.issuers.iter_mut();
        paths.extend(
            issuers
                .flat_map(|issuer| [&mut issuer.jwks_file, &mut issuer.jwks_ca_file])
                .flatten(),
        );
        let consumers = self.auth.consumers.iter_mut();
        paths.extend(consumers.filter_map(|consumer| consumer.secret_file.as_mut()));
        let federation = identity.federation.iter_mut();
        paths.extend(federation.map(|entry| &mut entry.bundle_file));
        paths.extend(self.workload_api.as_mut().map(|api| &mut api.socket));
        let rate_limits = self.rate_limit_service.iter_mut();
        paths.extend(rate_limits.flat_map(|service| &mut service.files));
        let sources = self.discovery.sources.iter_mut();
        paths.extend(sources.flat_map(SourceConfig::paths));
        let limit = self.resilience.rate_limit.as_mut();
        let store = limit.and_then(|limit| limit.store.as_mut());
        paths.extend(store.into_iter().flat_map(RateLimitStoreConfig::paths));
        paths.push(&mut self.discovery.cache.path);
        paths.push(&mut self.security.keys_dir);
        paths.push(&mut self.audit.path);
        if !self.access_log.is_stdout() {
            paths.push(&mut self.access_log.path);
        }
        for path in paths {
            *path = base.join(&*path);
        }
    }
}

/// Which SPIFFE id each service must prove; see [`NodeConfig::spiffe_id_of`].
#[derive(Clone, Debug)]
pub(crate) struct ExpectedIds {
    trust_domain: String,
    /// Where identities are Consul's.
    datacenter: Option<String>,
    /// `discovery.identities`.
    said: BTreeMap<String, String>,
}

impl ExpectedIds {
    #[cfg(test)]
    pub(crate) fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            datacenter: None,
            said: BTreeMap::new(),
        }
    }

    pub(crate) fn of(&self, service: &str) -> String {
        let domain = &self.trust_domain;
        match (self.said.get(service), &self.datacenter) {
            (Some(said), _) => said.clone(),
            (None, Some(datacenter)) => crate::consul::names::id_of(domain, datacenter, service),
            (None, None) => format!("spiffe://{domain}/{service}"),
        }
    }
}

/// A configuration file that was read and whose keys can still be found.
pub struct Document {
    file: String,
    base: PathBuf,
    root: Node,
    policies: PolicyFiles,
    /// The variables that name services, a control plane or a socket; no other is kept.
    services: Environment,
}

impl Document {
    /// Reads the file at `path`, with `environment` for its variables and over its keys.
    ///
    /// # Errors
    ///
    /// The file can't be read, is no YAML, or names a variable that is not set; or a `MESH_` variable names no key.
    pub fn read(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = read_text(path).map_err(|source| ConfigError::unreadable(&file, source))?;
        Self::parse(&text, path, environment)
    }

    /// Takes `text` as the content of the file at `path`; see [`Document::read`].
    ///
    /// # Errors
    ///
    /// As [`Document::read`].
    pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let mut root = Node::parse(text, &file)?;
        expand::expand(&mut root, environment, &file)?;
        environment::override_keys(&mut root, environment, &file)?;
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let policies = PolicyFiles::read(&root, (&file, &base), environment)?;
        Ok(Self {
            file,
            base,
            root,
            policies,
            services: environment::of_services(environment),
        })
    }

    /// The configuration in it.
    ///
    /// # Errors
    ///
    /// An unknown or missing key, or a value that is not allowed.
    pub fn config(&self) -> Result<NodeConfig, ConfigError> {
        let mut config: NodeConfig = decode::decode(&self.root, &self.file)?;
        environment::add_services(&mut config, &self.services, &self.file)?;
        environment::add_control_plane(&mut config, &self.services, &self.file)?;
        self.policies.fill(&mut config.policy)?;
        environment::add_socket(&mut config, &self.services, &self.file)?;
        rules::check(&config, self)?;
        config.resolve_paths(&self.base);
        secrets::read(&mut config, self)?;
        rate_limit_service::fill(&mut config, self)?;
        Ok(config)
    }

    /// An error about `key`, at its place: in the file of rules, where that is where it stands.
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let message = message.into();
        let in_rules = self.policies.error(key, &message);
        in_rules
            .unwrap_or_else(|| ConfigError::new(&self.file, self.root.place_of(key), key, message))
    }

    /// The shadow policy's file, where the configuration names one.
    pub fn shadow(&self) -> Option<&PolicyDocument> {
        self.policies.shadow.as_ref()
    }
}

impl std::fmt::Debug for Document {
    /// The file's name alone: its values and the environment may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Wiped when dropped: the file may hold a secret.
fn read_text(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?
        .take(FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES {
        return Err(std::io::Error::other("the file is larger than 4 MiB"));
    }
    Ok(text)
}

/// Room for ten thousand static endpoints and as many rules.
const FILE_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests;
