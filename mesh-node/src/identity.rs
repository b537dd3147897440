//! Where the node's certificate and trust bundles come from, and what is taken of them.
//!
//! A driver of the configured source puts what it gets into a [`Feed`]; [`Rotation`](crate::node) takes it from there,
//! judges it whole and swaps it in, or keeps what it had.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_resilience::random::Random;
use mesh_transport::tasks::Tasks;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::ca_service::client::CaClient;
use crate::config::IdentityConfig;
use crate::config::IdentitySource;
use crate::config::NodeConfig;
use crate::consul::identity::Consul;
use crate::error::Error;
use crate::stack::outbound::chain;

mod builtin;
mod federation;
mod feed;
mod files;
mod judge;
mod pem;
mod renewal;
mod workload_api;

pub(crate) use self::feed::Feed;
pub(crate) use self::feed::Intake;
pub(crate) use self::feed::News;
pub(crate) use self::judge::Identity;
pub(crate) use self::judge::Judge;
pub(crate) use self::judge::Roots;
pub(crate) use self::judge::Validity;
pub(crate) use self::pem::read_key;
pub(crate) use self::renewal::Backoff;
pub(crate) use self::renewal::renew_after;

/// What a source gives: whole, or not at all.
pub(crate) struct Material {
    /// The certificates, leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub(crate) key: Zeroizing<PrivateKeyDer<'static>>,
    /// The roots of each trust domain that is trusted: our own and those federated with it.
    pub(crate) bundles: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
}

impl Material {
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundles: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    ) -> Self {
        Self {
            chain,
            key: Zeroizing::new(key),
            bundles,
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("certificates", &self.chain.len())
            .field("domains", &self.bundles.keys())
            .finish_non_exhaustive()
    }
}

/// What every driver needs of the node.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) clock: fn() -> SystemTime,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) tasks: Tasks,
}

/// The configured source, not yet asked.
#[derive(Debug)]
pub(crate) enum Source {
    Files(files::Files),
    Builtin(builtin::Builtin),
    WorkloadApi(workload_api::WorkloadApi),
    Consul(Consul),
    Served(Box<CaClient>),
}

impl Source {
    /// The source that `config` names.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when a key that the source needs is missing.
    pub(crate) fn new(config: &NodeConfig, random: &Arc<dyn Random>) -> Result<Self, Error> {
        Ok(match config.identity.source {
            IdentitySource::Files => Self::Files(files::Files::new(&config.identity)?),
            IdentitySource::WorkloadApi => {
                Self::WorkloadApi(workload_api::WorkloadApi::new(config)?)
            }
            IdentitySource::Consul => Self::Consul(Consul::new(config, Arc::clone(random))?),
            IdentitySource::Builtin => match &config.identity.ca_url {
                Some(url) => Self::Served(Box::new(CaClient::new(config, url)?)),
                None => Self::Builtin(builtin::Builtin::new(config)?),
            },
        })
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Builtin(_) => "builtin",
            Self::WorkloadApi(_) => "workload_api",
            Self::Consul(_) => "consul",
            Self::Served(_) => "builtin (ca_url)",
        }
    }

    /// Whether it is on this machine's disk alone, so that what is wrong at the start stays wrong.
    fn is_local(&self) -> bool {
        match self {
            Self::Files(_) | Self::Builtin(_) => true,
            Self::WorkloadApi(_) | Self::Consul(_) | Self::Served(_) => false,
        }
    }

    /// Gets identities for as long as somebody takes them.
    async fn run(self, feed: Feed, around: Surroundings) {
        match self {
            Self::Files(files) => files.run(feed, around).await,
            Self::Builtin(builtin) => builtin.run(feed, around).await,
            Self::WorkloadApi(agent) => agent.run(feed, around).await,
            Self::Consul(consul) => consul.run(feed).await,
            Self::Served(client) => client.run(feed, around).await,
        }
    }

    /// Starts the driver, and waits until it gave an identity that `judge` takes.
    ///
    /// # Errors
    ///
    /// [`Error::NoIdentity`] with the last thing that went wrong: at once where the source lies on this machine's disk,
    /// else after `identity.startup_timeout`.
    pub(crate) async fn start(
        self,
        judge: &Judge,
        around: Surroundings,
        config: &IdentityConfig,
    ) -> Result<(Identity, Intake), Error> {
        let federation = federation::Federation::new(config)?;
        let timeout = config.startup_timeout;
        let (name, is_local) = (self.name(), self.is_local());
        let (feed, mut intake) = feed::channel();
        let (tasks, clock) = (around.tasks.clone(), around.clock);
        tasks.start(async move {
            let gone = feed.clone();
            tokio::select! {
                () = federation.run(self, feed, around) => {}
                () = gone.closed() => {}
            }
        });
        let deadline = tokio::time::Instant::now() + timeout;
        let mut last = format!("it was silent for {}", humantime::format_duration(timeout));
        loop {
            let news = tokio::time::timeout_at(deadline, intake.next()).await;
            let (why, is_over) = match news {
                Ok(News::Material(material)) => match judge.judge(material, clock()) {
                    Ok(identity) => return Ok((identity, intake)),
                    Err(error) => {
                        intake.refuse();
                        (chain(&error), is_local)
                    }
                },
                Ok(News::Unfit(why) | News::Failed(why)) => (why, is_local),
                Ok(News::Ended) => ("it ended by itself".to_owned(), true),
                Err(_elapsed) => (std::mem::take(&mut last), true),
            };
            if is_over {
                return Err(Error::NoIdentity {
                    from: name,
                    source: why.into(),
                });
            }
            tracing::warn!(source = name, error = why, "no identity yet; asking again");
            last = why;
        }
    }
}

/// This node's SPIFFE id.
pub(crate) fn own_id(config: &NodeConfig) -> Result<SpiffeId, Error> {
    let id = config.spiffe_id().parse();
    id.map_err(|source| Error::config("service.spiffe_id is no spiffe id", source))
}

/// The trust domain that it is in.
pub(crate) fn trust_domain(config: &IdentityConfig) -> Result<TrustDomain, Error> {
    let domain = config.trust_domain().parse();
    domain.map_err(|source| Error::config("identity.trust_domain is no trust domain", source))
}

fn needed(path: Option<&PathBuf>, key: &str) -> Result<PathBuf, Error> {
    path.cloned().ok_or_else(|| {
        Error::missing(format!(
            "identity.{key} is needed with this identity.source"
        ))
    })
}
