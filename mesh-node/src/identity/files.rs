//! Certificate, key and roots in PEM files, read again whenever they change.

use std::collections::BTreeMap;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::path::PathBuf;
use std::time::Duration;

use mesh_auth::spiffe::TrustDomain;
use mesh_transport::tls::certificates;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::IdentityConfig;
use crate::error::Error;
use crate::identity::Feed;
use crate::identity::Material;
use crate::identity::Surroundings;
use crate::identity::pem;
use crate::watch::FileWatch;

/// The three files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    trust_domain: TrustDomain,
}

impl Files {
    pub(super) fn new(config: &IdentityConfig) -> Result<Self, Error> {
        let needed = |path: &Option<PathBuf>, key| super::needed(path.as_ref(), key);
        Ok(Self {
            cert: needed(&config.cert_file, "cert_file")?,
            key: needed(&config.key_file, "key_file")?,
            ca: needed(&config.ca_file, "ca_file")?,
            trust_domain: super::trust_domain(config)?,
        })
    }

    /// Reads the files at once, and then whenever something changed beside them, or might have without our noticing.
    pub(super) async fn run(self, feed: Feed, around: Surroundings) {
        let files = vec![self.cert.clone(), self.key.clone(), self.ca.clone()];
        let mut watch = FileWatch::new(files, Vec::new());
        let mut last = None;
        loop {
            let files = self.clone();
            let read = around.tasks.blocking(move || files.read()).await;
            match read {
                Ok(Ok((inputs, _))) if last == Some(inputs) => {}
                Ok(Ok((inputs, material))) => {
                    last = Some(inputs);
                    feed.put(material);
                }
                Ok(Err(error)) => {
                    last = None;
                    feed.unfit(&error);
                }
                Err(error) => feed.failed(&error),
            }
            tokio::select! {
                () = watch.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = again(&feed) => last = None,
            }
        }
    }

    /// What the files say, and a number that is another one where they say something else.
    fn read(&self) -> Result<(u64, Material), Error> {
        let mut inputs = DefaultHasher::new();
        let cert = pem::read(&self.cert)?;
        let key = pem::read_key(&self.key)?;
        let ca = pem::read(&self.ca)?;
        for content in [&cert, &key, &ca] {
            content.hash(&mut inputs);
        }
        let secret = PrivateKeyDer::from_pem_slice(&key).map_err(|source| {
            let what = format!("{} holds no private key in PEM", self.key.display());
            Error::config(what, source)
        })?;
        let roots = certificates(&ca)?;
        let bundles = BTreeMap::from([(self.trust_domain.clone(), roots)]);
        let material = Material::new(certificates(&cert)?, secret, bundles);
        Ok((inputs.finish(), material))
    }
}

/// What was refused may be good later without a change of the files, as when it was not valid yet.
async fn again(feed: &Feed) {
    feed.refused().await;
    tokio::time::sleep(LOOK_EVERY).await;
}

/// Changes that the system does not tell of, as on network file systems, are seen within this.
const LOOK_EVERY: Duration = Duration::from_secs(30);
