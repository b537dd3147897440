//! The node's way to a served authority: a first certificate for a join token, the next for the last one, and the trust
//! bundle as soon as it changes.
//!
//! Keys are made here and never leave the node; each certificate has a new one. What came is kept in a folder, so that a
//! restart needs no token. The server must prove to be `spiffe://<trust domain>/mesh-ca` under the roots that are trusted
//! at the time: those of `identity.ca_file` to begin with, later those that the server itself told of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::csr::PendingKey;
use mesh_auth::ca::join::JoinToken;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::svid;
use mesh_transport::tls::certificates;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::Instant;

use self::error::ClientError;
use self::home::Home;
use self::home::Own;
use self::remote::Bundle;
use self::remote::Remote;
use crate::config::NodeConfig;
use crate::error::Error;
use crate::identity::Backoff;
use crate::identity::Feed;
use crate::identity::Material;
use crate::identity::Surroundings;
use crate::identity::Validity;
use crate::identity::renew_after;
use crate::stack::outbound::chain;

mod error;
mod home;
mod remote;

/// Gets the node's identity from a served authority.
#[derive(Clone, Debug)]
pub(crate) struct CaClient {
    remote: Remote,
    home: Home,
    token_file: Option<PathBuf>,
    lifetime: Duration,
    id: SpiffeId,
    trust_domain: TrustDomain,
}

/// What the driver knows at present.
struct Known {
    own: Option<Own>,
    validity: Option<Validity>,
    /// Trusted roots, PEM.
    bundle: String,
    /// The server's name for this bundle, once it told.
    tag: Option<String>,
    /// Stays the same until a certificate came for it, so that an answer which was lost can be had once more.
    pending: Option<PendingKey>,
}

/// Waits for another bundle.
type Watch = Pin<Box<dyn Future<Output = Result<Option<Bundle>, ClientError>> + Send>>;

impl CaClient {
    /// The client that `config` describes.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when a key is missing or wrong.
    pub(crate) fn new(config: &NodeConfig, url: &str) -> Result<Self, Error> {
        let identity = &config.identity;
        let needed = |path: Option<&PathBuf>, key: &str| {
            let missing =
                || Error::missing(format!("identity.{key} is needed with identity.ca_url"));
            path.cloned().ok_or_else(missing)
        };
        let trust_domain = crate::identity::trust_domain(identity)?;
        let server = SpiffeId::for_service(&trust_domain, mesh_auth::ca::SERVER)
            .map_err(|source| Error::config("identity.trust_domain is too long", source))?;
        let remote = Remote::new(url, server)
            .map_err(|source| Error::config("identity.ca_url is not usable", source))?;
        Ok(Self {
            remote,
            home: Home::new(
                needed(identity.ca_dir.as_ref(), "ca_dir")?,
                needed(identity.ca_file.as_ref(), "ca_file")?,
            ),
            token_file: identity.join_token_file.clone(),
            lifetime: identity.certificate_lifetime,
            id: crate::identity::own_id(config)?,
            trust_domain,
        })
    }

    /// Feeds what it has, what it gets, and every change of the roots, for as long as it is let run.
    pub(crate) async fn run(self, feed: Feed, around: Surroundings) {
        let mut backoff = Backoff::new(Arc::clone(&around.random));
        let mut known = loop {
            let (client, now) = (self.clone(), (around.clock)());
            match around.tasks.blocking(move || client.recall(now)).await {
                Ok(Ok(known)) => break known,
                Ok(Err(error)) => feed.unfit(&error),
                Err(error) => feed.failed(&error),
            }
            tokio::time::sleep(backoff.next()).await;
        };
        backoff.reset();
        self.offer(&known, &feed);
        let mut renew_at = due(&known, &around);
        let mut news = self.watch(&known, &around, Duration::ZERO);
        let mut pauses = backoff.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(renew_at) => {
                    match self.renew(&mut known, &around).await {
                        Ok(()) => {
                            backoff.reset();
                            self.offer(&known, &feed);
                            renew_at = due(&known, &around);
                            news = self.watch(&known, &around, PAUSE);
                        }
                        Err(error) => {
                            feed.failed(&error);
                            renew_at = Instant::now() + backoff.next();
                        }
                    }
                }
                found = &mut news => {
                    let mut pause = PAUSE;
                    match found {
                        Ok(Some(told)) => {
                            pauses.reset();
                            match self.learn(&mut known, told, &around).await {
                                Ok(true) => {
                                    self.offer(&known, &feed);
                                    if !is_vouched_for(&known) {
                                        renew_at = Instant::now();
                                    }
                                }
                                Ok(false) => {}
                                Err(error) => feed.failed(&error),
                            }
                        }
                        Ok(None) => pauses.reset(),
                        Err(error) => {
                            feed.failed(&error);
                            pause = pauses.next();
                        }
                    }
                    news = self.watch(&known, &around, pause);
                }
                () = feed.refused() => renew_at = Instant::now() + backoff.next(),
            }
        }
    }

    /// What an earlier run left; blocks.
    fn recall(&self, now: SystemTime) -> Result<Known, ClientError> {
        let bundle = self.home.bundle()?;
        let own = self.home.own()?.and_then(|own| {
            let validity = self.check(&own).ok()?;
            (now < validity.not_after).then_some((own, validity))
        });
        let (own, validity) = own.unzip();
        Ok(Known {
            own,
            validity,
            bundle,
            tag: None,
            pending: None,
        })
    }

    /// Gets a new certificate, and keeps it.
    async fn renew(&self, known: &mut Known, around: &Surroundings) -> Result<(), ClientError> {
        let now = (around.clock)();
        if known
            .validity
            .is_some_and(|validity| now >= validity.not_after)
        {
            (known.own, known.validity) = (None, None);
        }
        let token = match known.own {
            Some(_) => None,
            None => Some(self.token()?),
        };
        let pending = match &known.pending {
            Some(pending) => pending,
            None => known
                .pending
                .insert(PendingKey::generate().map_err(ClientError::Key)?),
        };
        let request = pending.request_pem().map_err(ClientError::Key)?;
        let credentials = known.own.as_ref().map(Own::credentials).transpose()?;
        let tls = Remote::tls(&known.bundle, &self.trust_domain, credentials.as_ref())?;
        let signed = self
            .remote
            .sign(tls, (request, token), self.lifetime, &around.tasks)
            .await?;
        let own = Own::new(signed.certificate, &pending.key_pem());
        let validity = self.check(&own)?;
        self.check_bundle(&signed.bundle)?;
        let (home, kept, bundle) = (self.home.clone(), own.clone(), signed.bundle.clone());
        // Whom to trust first: a certificate of a root that we forgot would be of no use.
        let keep = move || {
            home.keep_bundle(&bundle)
                .and_then(|()| home.keep_own(&kept))
        };
        around
            .tasks
            .blocking(keep)
            .await
            .map_err(ClientError::Cut)??;
        (known.bundle, known.tag) = (signed.bundle, None);
        (known.own, known.validity) = (Some(own), Some(validity));
        known.pending = None;
        Ok(())
    }

    /// Waits for another bundle than the one that is known, after a pause.
    fn watch(&self, known: &Known, around: &Surroundings, pause: Duration) -> Watch {
        if known.own.is_none() {
            // The first certificate brings the bundle with it.
            return Box::pin(std::future::pending());
        }
        let (client, bundle, tasks) = (self.clone(), known.bundle.clone(), around.tasks.clone());
        let (tag, own) = (known.tag.clone(), known.own.clone());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            if let Some(own) = own {
                let credentials = own.credentials()?;
                let tls = Remote::tls(&bundle, &client.trust_domain, Some(&credentials))?;
                match client.remote.bundle(tls, tag.as_deref(), &tasks).await {
                    Err(error) => {
                        tracing::debug!(error = chain(&error), "asking for the roots as nobody");
                    }
                    told => return told,
                }
            }
            // Whoever's certificate is not taken any more may still learn whom to trust, but is not let wait for it.
            let tls = Remote::tls(&bundle, &client.trust_domain, None)?;
            let told = client.remote.bundle(tls, tag.as_deref(), &tasks).await?;
            if told.is_none() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(told)
        })
    }

    /// Trusts the roots that were told from now on, also after a restart; whether they are others.
    async fn learn(
        &self,
        known: &mut Known,
        told: Bundle,
        around: &Surroundings,
    ) -> Result<bool, ClientError> {
        self.check_bundle(&told.pem)?;
        let is_new = told.pem != known.bundle;
        if is_new {
            let (home, kept) = (self.home.clone(), told.pem.clone());
            let keep = move || home.keep_bundle(&kept);
            around
                .tasks
                .blocking(keep)
                .await
                .map_err(ClientError::Cut)??;
        }
        (known.bundle, known.tag) = (told.pem, told.tag);
        Ok(is_new)
    }

    fn offer(&self, known: &Known, feed: &Feed) {
        let Some(own) = &known.own else { return };
        match self.material(own, &known.bundle) {
            Ok(material) => feed.put(material),
            Err(error) => feed.unfit(&error),
        }
    }

    fn material(&self, own: &Own, bundle: &str) -> Result<Material, ClientError> {
        let chain = certificates(own.chain().as_bytes()).map_err(ClientError::Tls)?;
        let key = PrivateKeyDer::from_pem_slice(own.pem().as_bytes()).map_err(ClientError::Pem)?;
        let roots = certificates(bundle.as_bytes()).map_err(ClientError::Tls)?;
        let bundles = BTreeMap::from([(self.trust_domain.clone(), roots)]);
        Ok(Material::new(chain, key, bundles))
    }

    /// That certificate and key are ours and belong together; from when to when.
    fn check(&self, own: &Own) -> Result<Validity, ClientError> {
        own.credentials()?;
        let leaf =
            CertificateDer::from_pem_slice(own.chain().as_bytes()).map_err(ClientError::Pem)?;
        let found = svid::leaf_identity(&leaf).map_err(ClientError::Svid)?;
        if found != self.id {
            return Err(ClientError::OtherId {
                found,
                ours: self.id.clone(),
            });
        }
        let facts = svid::inspect(&leaf).map_err(ClientError::Svid)?;
        Ok(Validity {
            // The authority dates certificates back a little; their life begins when they are made.
            not_before: facts.not_before + mesh_auth::ca::BACKDATE,
            not_after: facts.not_after,
        })
    }

    /// That every certificate of a bundle is a root of our trust domain.
    fn check_bundle(&self, bundle: &str) -> Result<(), ClientError> {
        for root in certificates(bundle.as_bytes()).map_err(ClientError::Tls)? {
            let domain = svid::signing_identity(&root).map_err(ClientError::Svid)?;
            if domain.is_some_and(|domain| domain != self.trust_domain) {
                return Err(ClientError::OtherDomain);
            }
        }
        Ok(())
    }

    fn token(&self) -> Result<JoinToken, ClientError> {
        let path = self.token_file.as_ref().ok_or(ClientError::NoToken)?;
        let text = self.home.read_private(path)?;
        JoinToken::parse(&text).map_err(ClientError::Token)
    }
}

/// Whether a root of the bundle signed our certificate, as far as names tell.
fn is_vouched_for(known: &Known) -> bool {
    let Some(own) = &known.own else { return true };
    let facts = |pem: &str| -> Option<Vec<_>> {
        let read = certificates(pem.as_bytes()).ok()?;
        read.iter().map(|one| svid::inspect(one).ok()).collect()
    };
    let (Some(chain), Some(roots)) = (facts(own.chain()), facts(&known.bundle)) else {
        return false;
    };
    let last = chain.last();
    roots
        .iter()
        .any(|root| last.is_some_and(|last| last.issuer == root.subject))
}

/// When the next certificate is due: now, where there is none.
fn due(known: &Known, around: &Surroundings) -> Instant {
    let now = (around.clock)();
    let wait = known
        .validity
        .map(|validity| renew_after(validity, now, &*around.random));
    Instant::now() + wait.unwrap_or_default()
}

/// Between two questions for the bundle, so that a server which never waits is not asked without end.
const PAUSE: Duration = Duration::from_millis(500);
/// As long as the server would keep us waiting.
const LOOK_EVERY: Duration = Duration::from_mins(1);
