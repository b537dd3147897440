//! The sources that ask somebody, and the way to register with those that can be written to.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_discovery::AddressRange;
use mesh_discovery::AddressRules;
use mesh_discovery::Belief;
use mesh_discovery::Driver;
use mesh_discovery::Host;
use mesh_discovery::Register;
use mesh_discovery::Registry;
use mesh_discovery::RegistryConfig;
use mesh_discovery::ServiceName;
use mesh_discovery::TlsConfig;
use mesh_discovery::TlsIdentity;
use mesh_discovery::Vitals;
use mesh_discovery::cache::Cache;
use mesh_discovery::consul;
use mesh_discovery::dns;
use mesh_discovery::etcd;
use mesh_discovery::file;
use mesh_discovery::xds;
use mesh_resilience::random::Random;
use mesh_transport::BoxError;

use super::super::admission::Rules;
use super::super::control_planes::ControlPlane;
use super::super::own::Own;
use crate::config::ConsulSourceConfig;
use crate::config::DnsSourceConfig;
use crate::config::EtcdSourceConfig;
use crate::config::FileSourceConfig;
use crate::config::NodeConfig;
use crate::config::RegisterCheck;
use crate::config::RegisterConfig;
use crate::config::SecretText;
use crate::config::SourceConfig;
use crate::config::XdsSourceConfig;
use crate::config::XdsVariant;
use crate::identity::read_key;
use crate::secret_file;

/// Makes sources.
pub(super) struct Builder<'a> {
    pub(super) config: &'a NodeConfig,
    pub(super) random: &'a Arc<dyn Random>,
    pub(super) belief: Belief,
    /// What checks and calls know of endpoints.
    pub(super) vitals: &'a Arc<Vitals>,
    /// The last good lists, where they are kept.
    pub(super) cache: Option<&'a Arc<Cache>>,
    /// What no registry may lead calls to.
    pub(super) own: &'a Own,
}

/// A source, its work, and the way to register with it, where that is asked for.
pub(super) struct Built {
    pub(super) registry: Registry,
    pub(super) driver: Driver,
    pub(super) registrar: Option<Arc<dyn Register>>,
    pub(super) control_plane: Option<ControlPlane>,
}

impl Builder<'_> {
    /// The source that `config` says; none for a static list.
    pub(super) fn source(&self, config: &SourceConfig) -> Option<Result<Built, BoxError>> {
        match config {
            SourceConfig::Static(_) => None,
            SourceConfig::File(file) => Some(self.file(file)),
            SourceConfig::Consul(consul) => Some(self.consul(consul)),
            SourceConfig::Etcd(etcd) => Some(self.etcd(etcd)),
            SourceConfig::Dns(dns) => Some(self.dns(dns)),
            SourceConfig::Xds(xds) => Some(self.xds(xds)),
        }
    }

    fn consul(&self, config: &ConsulSourceConfig) -> Result<Built, BoxError> {
        let mut reached = consul::Config::new(&*config.url);
        let files = (&config.ca_file, &config.cert_file, &config.key_file);
        reached.tls = tls(files, config.server_name.as_ref())?;
        reached.namespace.clone_from(&config.namespace);
        let token = secret(config.token.as_ref(), config.token_file.as_ref());
        let client = consul::Client::new(&reached, token, self.random())?;
        let registrar = match self.registers(&config.name) {
            None => None,
            Some(register) => {
                let settings = consul::RegistrarConfig::default()
                    .with_check(self.agent_check(register)?)
                    .with_deregister_after(Some(register.deregister_after));
                let registrar = consul::Registrar::new(client.clone(), settings)?;
                Some(Arc::new(registrar) as Arc<dyn Register>)
            }
        };
        let mut asked = consul::SourceConfig::default().with_tags(config.tags.clone());
        asked.datacenter.clone_from(&config.datacenter);
        let registry = self.registry(&config.name, &config.may_name_identities);
        let (registry, driver) = consul::source(client, asked, registry)?;
        Ok(Built {
            registry,
            driver,
            registrar,
            control_plane: None,
        })
    }

    fn etcd(&self, config: &EtcdSourceConfig) -> Result<Built, BoxError> {
        let mut reached = etcd::Config::new(config.endpoints.iter().map(String::as_str));
        let files = (&config.ca_file, &config.cert_file, &config.key_file);
        reached.tls = tls(files, config.server_name.as_ref())?;
        let password = secret(config.password.as_ref(), config.password_file.as_ref());
        reached.credentials = config
            .username
            .as_deref()
            .zip(password)
            .map(|(user, password)| etcd::Credentials::new(user, password));
        let client = etcd::Client::new(&reached, self.random())?;
        let registrar = match self.registers(&config.name) {
            None => None,
            Some(register) => {
                let settings = etcd::RegistrarConfig::default()
                    .with_prefix(&*config.prefix)
                    .with_ttl(register.ttl);
                let registrar = etcd::Registrar::new(client.clone(), &settings)?;
                Some(Arc::new(registrar) as Arc<dyn Register>)
            }
        };
        let asked = etcd::SourceConfig::default().with_prefix(&*config.prefix);
        let registry = self.registry(&config.name, &config.may_name_identities);
        let (registry, driver) = etcd::source(client, &asked, registry)?;
        Ok(Built {
            registry,
            driver,
            registrar,
            control_plane: None,
        })
    }

    fn dns(&self, config: &DnsSourceConfig) -> Result<Built, BoxError> {
        let mut asked = dns::Config::new(&*config.template);
        let names: Result<BTreeMap<_, _>, mesh_discovery::NameError> = config
            .names
            .iter()
            .map(|(service, name)| Ok((ServiceName::parse(service)?, name.clone())))
            .collect();
        asked.names = names?;
        asked.srv = config.srv;
        asked.port = config.port.map(Into::into);
        asked.servers.clone_from(&config.servers);
        asked.min_ttl = config.min_ttl;
        asked.max_ttl = config.max_ttl;
        asked.max_negative_ttl = config.max_negative_ttl;
        let ranges = config.allow.iter().map(|range| AddressRange::parse(range));
        let mut addresses = AddressRules::default();
        addresses.allow = ranges.collect::<Result<_, _>>()?;
        addresses.own.clone_from(&self.own.others);
        asked.addresses = addresses;
        let (registry, driver) =
            dns::source(asked, self.random(), self.registry(&config.name, &[]))?;
        Ok(Built {
            registry,
            driver,
            registrar: None,
            control_plane: None,
        })
    }

    fn file(&self, config: &FileSourceConfig) -> Result<Built, BoxError> {
        // As much configuration as the file that names it, so it may say who somebody is; the cache may not, and is not
        // needed: this is a file already.
        // threat 48
        let mut registry = self.registry(&config.name, &[EVERYBODY.to_owned()]);
        registry.cache = None;
        let (registry, driver) = file::source(file::Config::new(&config.path), registry)?;
        Ok(Built {
            registry,
            driver,
            registrar: None,
            control_plane: None,
        })
    }

    fn xds(&self, config: &XdsSourceConfig) -> Result<Built, BoxError> {
        let own = &self.config.service.id;
        let id = config.node_id.as_ref().unwrap_or(own);
        let mut asked = xds::Config::new(config.servers.clone(), &**id, self.random());
        let files = (&config.ca_file, &config.cert_file, &config.key_file);
        asked.tls = tls(files, config.server_name.as_ref())?;
        asked
            .node
            .cluster
            .clone_from(config.node_cluster.as_ref().unwrap_or(own));
        asked.variant = match config.variant {
            XdsVariant::Sotw => xds::Variant::StateOfTheWorld,
            XdsVariant::Delta => xds::Variant::Incremental,
        };
        asked.token = secret(None, config.token_file.as_ref());
        let registry = self.registry(&config.name, &config.may_name_identities);
        let control_plane = ControlPlane {
            source: Arc::from(&*config.name),
            findings: asked.findings.clone(),
        };
        let (registry, driver) = xds::source(asked, registry)?;
        Ok(Built {
            registry,
            driver,
            registrar: None,
            control_plane: Some(control_plane),
        })
    }

    /// How the answers of the source `name` are taken.
    fn registry(&self, name: &str, may_name: &[String]) -> RegistryConfig {
        let rules = Rules {
            ids: self.config.expected_ids(),
            may_name: may_name.to_vec(),
            own: self.own.clone(),
        };
        let registry = RegistryConfig::new(name)
            .with_belief(self.belief.clone())
            .with_evidence(Arc::clone(self.vitals) as Arc<_>)
            .with_admission(Arc::new(rules));
        match self.cache {
            Some(cache) => registry.with_cache(Arc::clone(cache) as Arc<_>),
            None => registry,
        }
    }

    /// How this node registers with the source `name`, where it does.
    fn registers(&self, name: &str) -> Option<&RegisterConfig> {
        let register = self.config.discovery.register.as_ref()?;
        let is_meant =
            register.sources.is_empty() || register.sources.iter().any(|source| source == name);
        is_meant.then_some(register)
    }

    /// How Consul's agent learns that this node lives.
    fn agent_check(&self, register: &RegisterConfig) -> Result<consul::AgentCheck, BoxError> {
        let (config, interval) = (self.config, register.interval);
        let target = register.check_target.clone();
        Ok(match register.check {
            RegisterCheck::Ttl => consul::AgentCheck::Ttl(register.ttl),
            RegisterCheck::Tcp => consul::AgentCheck::Tcp {
                address: match target {
                    Some(target) => target,
                    None => {
                        announced(config, register, config.service.listen.port())?.host_and_port()
                    }
                },
                interval,
            },
            RegisterCheck::Http => consul::AgentCheck::Http {
                url: target
                    .unwrap_or_else(|| format!("http://{}/health/ready", config.admin.listen)),
                interval,
            },
            RegisterCheck::Grpc => consul::AgentCheck::Grpc {
                target: match (target, &config.service.app) {
                    (Some(target), _) => target,
                    (None, Some(app)) => app.to_string(),
                    (None, None) => {
                        return Err(
                            "check: grpc needs check_target, for there is no application".into(),
                        );
                    }
                },
                uses_tls: false,
                interval,
            },
        })
    }

    fn random(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let random = Arc::clone(self.random);
        Arc::new(move || random.next_u64())
    }
}

/// Where other nodes reach this one.
pub(in crate::discovery) struct Announced {
    pub(in crate::discovery) host: Host,
    pub(in crate::discovery) port: u16,
}

impl Announced {
    fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Where other nodes reach a node that listens on `port`.
pub(in crate::discovery) fn announced(
    config: &NodeConfig,
    register: &RegisterConfig,
    port: u16,
) -> Result<Announced, BoxError> {
    let host = match &register.host {
        Some(host) => Host::parse(host)?,
        None => Host::from_ip(config.service.listen.ip())?,
    };
    let port = register.port.map_or(port, Into::into);
    Ok(Announced { host, port })
}

/// All ids.
const EVERYBODY: &str = "spiffe://*";

type Secret = Arc<dyn Fn() -> io::Result<String> + Send + Sync>;

/// A secret that stands in the configuration, or in a file that is read each time.
fn secret(text: Option<&SecretText>, file: Option<&PathBuf>) -> Option<Secret> {
    if let Some(file) = file {
        return Some(password_in(file));
    }
    let text = text.cloned()?;
    Some(Arc::new(move || Ok(text.expose().to_owned())))
}

/// A secret in a file that is read each time.
pub(crate) fn password_in(file: &Path) -> Secret {
    let file = file.to_owned();
    Arc::new(move || read_secret(&file))
}

fn read_secret(file: &Path) -> io::Result<String> {
    let named = |why: &(dyn std::error::Error + 'static)| {
        let text = crate::stack::outbound::chain(why);
        io::Error::other(format!("{}: {text}", file.display()))
    };
    let secret = secret_file::read(file).map_err(|error| named(&error))?;
    if secret.trim().is_empty() {
        return Err(named(&io::Error::other("the file is empty")));
    }
    Ok(secret.trim().to_owned())
}

/// TLS with these roots, certificate and key; none where there are no roots.
pub(crate) fn tls(
    (ca, certificate, key): (&Option<PathBuf>, &Option<PathBuf>, &Option<PathBuf>),
    name: Option<&String>,
) -> Result<Option<TlsConfig>, BoxError> {
    let Some(ca) = ca else { return Ok(None) };
    let mut tls = TlsConfig::new(read(ca)?);
    if let (Some(certificate), Some(key)) = (certificate, key) {
        tls = tls.with_identity(TlsIdentity::new(
            read(certificate)?,
            read_key(key)?.to_vec(),
        ));
    }
    if let Some(name) = name {
        tls = tls.with_server_name(&**name);
    }
    Ok(Some(tls))
}

fn read(path: &Path) -> Result<Vec<u8>, BoxError> {
    std::fs::read(path).map_err(|source| format!("{}: {source}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use mesh_discovery::Belief;
    use mesh_discovery::Discover as _;
    use mesh_discovery::Endpoint;
    use mesh_discovery::Endpoints;
    use mesh_discovery::Recall as _;
    use mesh_resilience::random::SplitMix64;

    use super::*;
    use crate::config::Document;
    use crate::config::Environment;
    use crate::node::wall_clock;

    // threat 48
    #[tokio::test]
    async fn what_lies_in_the_cache_names_nobody_in_the_place_of_a_file() {
        let (cache, _driver) = Cache::new(
            mesh_discovery::cache::CacheConfig::default(),
            Arc::new(wall_clock),
        );
        let orders = ServiceName::parse("orders").unwrap();
        let mut endpoint = Endpoint::new("10.0.0.7".parse().unwrap(), 50051);
        endpoint.spiffe_id = Some("spiffe://example.org/somebody-else".to_owned());
        let list = Endpoints::new(vec![endpoint], 1).unwrap();
        for source in ["file", "consul"] {
            cache.remember(&Arc::from(source), &orders, &list);
        }
        let text = "service: { id: users }\nidentity: { trust_domain: example.org, source: builtin, ca_dir: ca }\ndiscovery: { sources: [\
            { mode: file, path: /nonexistent/services.yaml }, \
            { mode: consul, may_name_identities: ['spiffe://example.org/*'] } ] }";
        let document = Document::parse(text, Path::new("mesh.yaml"), &Environment::new());
        let config = document.unwrap().config().unwrap();
        let builder = Builder {
            config: &config,
            random: &(Arc::new(SplitMix64::new(7)) as Arc<dyn Random>),
            belief: Belief::default(),
            vitals: &Arc::new(Vitals::new()),
            cache: Some(&cache),
            own: &Own::new(&config),
        };
        let restored: Vec<usize> = config
            .discovery
            .sources
            .iter()
            .map(|source| builder.source(source).unwrap().unwrap())
            .map(|built| built.registry.watch(&orders).current().len())
            .collect();
        assert_eq!(
            restored,
            [0, 1],
            "only a registry begins with what was before"
        );
    }
}
