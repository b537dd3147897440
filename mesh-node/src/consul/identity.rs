//! Identity from Consul's Connect CA: the leaf that the agent keeps fresh, and all roots that are trusted, each by a
//! blocking query.
//!
//! The agent makes the key and renews the leaf before it ends and when the CA changes. Consul names the new root and the
//! old one until no leaf of the old one can be left, so both are trusted for that time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_discovery::consul::Client;
use mesh_resilience::random::Random;
use mesh_transport::tls::certificates;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::client;
use super::names::ServiceId;
use super::wire::Leaf;
use super::wire::Roots;
use crate::config::IdentitySource;
use crate::config::Learnt;
use crate::config::NodeConfig;
use crate::error::Error;
use crate::identity::Feed;
use crate::identity::Material;
use crate::stack::outbound::chain;

/// Consul's CA as a source of identity.
#[derive(Debug)]
pub(crate) struct Consul {
    client: Client,
    service: String,
}

impl Consul {
    /// The source that `identity.consul` says.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] or [`Error::Read`].
    pub(crate) fn new(config: &NodeConfig, random: Arc<dyn Random>) -> Result<Self, Error> {
        let consul = config.identity.consul.clone().unwrap_or_default();
        Ok(Self {
            client: client(&consul, "identity.consul", random)?,
            service: consul.service.unwrap_or_else(|| config.service.id.clone()),
        })
    }

    fn leaf_path(&self) -> String {
        format!("/v1/agent/connect/ca/leaf/{}", self.service)
    }

    /// Gives an identity each time the leaf or the roots have changed.
    pub(crate) async fn run(self, feed: Feed) {
        let mut leaves = self.client.watch(self.leaf_path());
        let mut roots = self.client.watch(ROOTS);
        let (mut leaf, mut trusted) = (None, None);
        loop {
            let changed = tokio::select! {
                answer = leaves.next::<Leaf>() => answer.map(|answer| leaf = Some(answer.value)),
                answer = roots.next::<Roots>() => answer.map(|answer| trusted = Some(answer.value)),
            };
            if let Err(error) = changed {
                feed.failed(&error);
                continue;
            }
            let (Some(leaf), Some(trusted)) = (&leaf, &trusted) else {
                continue;
            };
            match material(leaf, trusted) {
                Ok(material) => feed.put(material),
                Err(error) => feed.unfit(&error),
            }
        }
    }
}

/// Asks Consul who this node is, where its identity comes from there: the trust domain is Consul's own, and the
/// datacenter is part of every id.
///
/// # Errors
///
/// [`Error::NoIdentity`] when Consul did not say so within `identity.startup_timeout`; [`Error::Config`] when the configuration
/// says otherwise.
pub(crate) async fn learn(
    config: &NodeConfig,
    random: Arc<dyn Random>,
) -> Result<Option<Learnt>, Error> {
    if config.identity.source != IdentitySource::Consul {
        return Ok(None);
    }
    let consul = Consul::new(config, random)?;
    let timeout = config.identity.startup_timeout;
    let mut last = None;
    let asking = async {
        let mut query = consul.client.watch(consul.leaf_path());
        loop {
            match query.next::<Leaf>().await {
                Ok(answer) => return answer.value,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(source = "consul", error, "no identity yet; asking again");
                    last = Some(error);
                }
            }
        }
    };
    let asked = tokio::time::timeout(timeout, asking).await;
    let Ok(leaf) = asked else {
        let silent = || silence(timeout);
        return Err(Error::NoIdentity {
            from: "consul",
            source: last.unwrap_or_else(silent).into(),
        });
    };
    learnt(&leaf.uri, &consul.service, config).map(Some)
}

fn learnt(uri: &str, service: &str, config: &NodeConfig) -> Result<Learnt, Error> {
    let id: SpiffeId = uri
        .parse()
        .map_err(|source| Error::config(format!("consul names {uri:?} for this node"), source))?;
    let found = ServiceId::of(&id).filter(|found| found.service == service);
    let found = found.ok_or_else(|| {
        let what = format!("consul names {id} for the service {service}; only the namespace and partition `default` are known here");
        Error::missing(what)
    })?;
    let domain = id.trust_domain().as_str();
    if let Some(configured) = config.identity.configured_trust_domain()
        && configured != domain
    {
        let what = format!(
            "identity.trust_domain is {configured}, but consul's is {domain}; write that, or leave it out"
        );
        return Err(Error::missing(what));
    }
    Ok(Learnt {
        trust_domain: domain.to_owned(),
        datacenter: found.datacenter.to_owned(),
        id: id.to_string(),
    })
}

fn material(leaf: &Leaf, trusted: &Roots) -> Result<Material, Error> {
    let domain = TrustDomain::parse(&trusted.trust_domain)
        .map_err(|source| Error::config("consul names no usable trust domain", source))?;
    let roots = trusted.roots.as_deref().unwrap_or_default();
    if roots.is_empty() {
        return Err(Error::missing("consul names no root".to_owned()));
    }
    let roots = roots
        .iter()
        .map(|root| certificates(root.root_cert.as_bytes()));
    let roots: Vec<_> = roots.collect::<Result<Vec<_>, _>>()?.concat();
    let chain = certificates(leaf.certificates.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.expose().as_bytes())
        .map_err(|source| Error::config("consul's key is no private key in PEM", source))?;
    Ok(Material::new(chain, key, BTreeMap::from([(domain, roots)])))
}

fn silence(timeout: Duration) -> String {
    format!("it was silent for {}", humantime::format_duration(timeout))
}

const ROOTS: &str = "/v1/connect/ca/roots";

#[cfg(test)]
mod tests;
