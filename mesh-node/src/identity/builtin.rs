//! The built-in CA whose key lies beside the node: the node issues its own certificates.

use std::collections::BTreeMap;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::svid;
use mesh_transport::tls::certificates;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::config::NodeConfig;
use crate::error::Error;
use crate::identity::Backoff;
use crate::identity::Feed;
use crate::identity::Material;
use crate::identity::Surroundings;
use crate::identity::judge::Validity;
use crate::identity::pem;
use crate::identity::renew_after;
use crate::watch::FileWatch;

/// The CA's files, and what it issues.
#[derive(Clone, Debug)]
pub(crate) struct Builtin {
    certificate: PathBuf,
    key: PathBuf,
    lifetime: Duration,
    id: SpiffeId,
    trust_domain: TrustDomain,
}

impl Builtin {
    pub(super) fn new(config: &NodeConfig) -> Result<Self, Error> {
        let identity = &config.identity;
        let dir = super::needed(identity.ca_dir.as_ref(), "ca_dir")?;
        Ok(Self {
            certificate: dir.join("ca.crt"),
            key: dir.join("ca.key"),
            lifetime: identity.certificate_lifetime,
            id: super::own_id(config)?,
            trust_domain: super::trust_domain(identity)?,
        })
    }

    /// Issues a certificate at once, whenever the CA's files change, and before the last one ends.
    pub(super) async fn run(self, feed: Feed, around: Surroundings) {
        let mut watch =
            FileWatch::new(vec![self.certificate.clone(), self.key.clone()], Vec::new());
        let mut backoff = Backoff::new(Arc::clone(&around.random));
        loop {
            let (builtin, now) = (self.clone(), (around.clock)());
            let issued = around.tasks.blocking(move || builtin.issue(now)).await;
            let wait = match issued {
                Ok(Ok((material, validity))) => {
                    feed.put(material);
                    renew_after(validity, now, &*around.random)
                }
                Ok(Err(error)) => {
                    feed.unfit(&error);
                    backoff.next()
                }
                Err(error) => {
                    feed.failed(&error);
                    backoff.next()
                }
            };
            let before = self.stamp();
            let change = async {
                loop {
                    watch.changed().await;
                    if self.stamp() != before {
                        return;
                    }
                }
            };
            tokio::select! {
                () = change => backoff.reset(),
                () = tokio::time::sleep(wait) => {}
                () = feed.refused() => tokio::time::sleep(backoff.next()).await,
            }
        }
    }

    /// Another number where the CA's files say something else.
    fn stamp(&self) -> u64 {
        let mut stamp = DefaultHasher::new();
        for path in [&self.certificate, &self.key] {
            let content = std::fs::read(path).map(Zeroizing::new);
            content.unwrap_or_default().hash(&mut stamp);
        }
        stamp.finish()
    }

    fn issue(&self, now: SystemTime) -> Result<(Material, Validity), Error> {
        let root = pem::read(&self.certificate)?;
        let authority = Authority::from_pem(
            &String::from_utf8_lossy(&root),
            &String::from_utf8_lossy(&pem::read_key(&self.key)?),
        );
        let authority =
            authority.map_err(|source| Error::config("the built-in CA is not usable", source))?;
        let failed =
            |source| Error::config("the built-in CA could not issue a certificate", source);
        let issued = authority.issue(&self.id, self.lifetime, now, &[]);
        let issued = issued.map_err(failed)?;
        let chain = certificates(issued.certificate_pem.as_bytes())?;
        let leaf = chain.first().map(|leaf| svid::inspect(leaf)).transpose();
        let not_before = leaf
            .map_err(|source| Error::config("the built-in CA issued no certificate", source))?
            .map_or(now, |leaf| leaf.not_before);
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())
            .map_err(|source| Error::config("the built-in CA made no key", source))?;
        let bundles = BTreeMap::from([(self.trust_domain.clone(), certificates(&root)?)]);
        let validity = Validity {
            not_before,
            not_after: issued.not_after,
        };
        Ok((Material::new(chain, key, bundles), validity))
    }
}
