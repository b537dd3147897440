//! Where the node's certificate and trust bundle come from, and how they are kept fresh.

use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::svid;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::TlsIdentity;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;
use rustls_pki_types::CertificateDer;

use crate::config::IdentitySource;
use crate::config::NodeConfig;
use crate::error::Error;

/// A node's identity as its sources give it at one time.
#[derive(Debug)]
pub(crate) struct Identity {
    credentials: Credentials,
    bundles: TrustBundles,
    not_after: SystemTime,
    seen: Seen,
}

/// What the sources said, to tell what is new when they are read again.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The same for the same files.
    pub(crate) inputs: u64,
    /// The roots that are trusted.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// Reads the identity anew when asked.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    id: SpiffeId,
    trust_domain: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Files {
        cert: PathBuf,
        key: PathBuf,
        ca: PathBuf,
    },
    Builtin {
        certificate: PathBuf,
        key: PathBuf,
        lifetime: Duration,
    },
}

impl Source {
    /// The source that `config` names.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when a key that the source needs is missing.
    pub(crate) fn new(config: &NodeConfig) -> Result<Self, Error> {
        let identity = &config.identity;
        let id = config
            .spiffe_id()
            .parse()
            .map_err(|source| Error::config("service.spiffe_id is no spiffe id", source))?;
        let needed = |path: &Option<PathBuf>, key: &str| {
            path.clone().ok_or_else(|| {
                Error::missing(format!(
                    "identity.{key} is needed with this identity.source"
                ))
            })
        };
        let kind = match identity.source {
            IdentitySource::Files => Kind::Files {
                cert: needed(&identity.cert_file, "cert_file")?,
                key: needed(&identity.key_file, "key_file")?,
                ca: needed(&identity.ca_file, "ca_file")?,
            },
            IdentitySource::Builtin => {
                let dir = needed(&identity.ca_dir, "ca_dir")?;
                let lifetime = identity.certificate_lifetime;
                Kind::Builtin {
                    certificate: dir.join("ca.crt"),
                    key: dir.join("ca.key"),
                    lifetime,
                }
            }
        };
        Ok(Self {
            id,
            trust_domain: identity.trust_domain.clone(),
            kind,
        })
    }

    /// Reads certificate, key and roots; with the built-in CA it issues a fresh certificate.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when a file can't be read, parts do not belong together, or the certificate is not this
    /// node's or not valid at `now`.
    pub(crate) fn load(&self, now: SystemTime) -> Result<Identity, Error> {
        let mut inputs = DefaultHasher::new();
        let mut read = |path: &Path| {
            let content = read(path)?;
            content.hash(&mut inputs);
            Ok::<_, Error>(content)
        };
        let (chain, key, roots) = match &self.kind {
            Kind::Files { cert, key, ca } => (read(cert)?, read(key)?, read(ca)?),
            Kind::Builtin {
                certificate,
                key,
                lifetime,
            } => {
                let root = read(certificate)?;
                let authority = Authority::from_pem(
                    &String::from_utf8_lossy(&root),
                    &String::from_utf8_lossy(&read(key)?),
                );
                let authority = authority
                    .map_err(|source| Error::identity("the built-in CA is not usable", source))?;
                let issued = authority.issue(&self.id, *lifetime, now, &[]);
                let issued = issued.map_err(|source| {
                    Error::identity("the built-in CA could not issue a certificate", source)
                })?;
                (
                    issued.certificate_pem.into_bytes(),
                    issued.key_pem.as_bytes().to_vec(),
                    root,
                )
            }
        };
        let credentials = Credentials::from_pem(&chain, &key)?;
        let leaf = credentials
            .chain()
            .first()
            .ok_or_else(|| Error::missing("there is no certificate".to_owned()))?;
        let found = svid::leaf_identity(leaf)
            .map_err(|source| Error::identity("the certificate is no X509-SVID", source))?;
        if found != self.id {
            return Err(Error::missing(format!(
                "the certificate is of {found}, but this node is {}; set service.spiffe_id",
                self.id
            )));
        }
        let facts = svid::inspect(leaf)
            .map_err(|source| Error::identity("the certificate can't be read", source))?;
        if now < facts.not_before || now >= facts.not_after {
            let (from, to) = (
                humantime::format_rfc3339(facts.not_before),
                humantime::format_rfc3339(facts.not_after),
            );
            return Err(Error::missing(format!(
                "the certificate of {found} is valid from {from} to {to}, which is not now"
            )));
        }
        let roots = certificates(&roots)?;
        let bundles = TrustBundles::new().with_domain(&self.trust_domain, &roots)?;
        Ok(Identity {
            credentials,
            bundles,
            not_after: facts.not_after,
            seen: Seen {
                inputs: inputs.finish(),
                roots,
            },
        })
    }

    /// The directories whose changes mean that the identity may have changed.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let files = match &self.kind {
            Kind::Files { cert, key, ca } => vec![cert, key, ca],
            Kind::Builtin { certificate, .. } => vec![certificate],
        };
        let mut dirs: Vec<_> = files
            .into_iter()
            .filter_map(|file| file.parent())
            .map(Path::to_owned)
            .collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// When to read it again without being told: with the built-in CA at half of the certificate's life.
    pub(crate) fn renew_after(&self, now: SystemTime, not_after: SystemTime) -> Option<Duration> {
        let left = not_after.duration_since(now).unwrap_or_default();
        matches!(self.kind, Kind::Builtin { .. }).then(|| (left / 2).max(SHORTEST_RENEWAL))
    }
}

impl Identity {
    /// A store that holds this identity, until when that is valid, and what it was made of.
    pub(crate) fn into_store(self) -> Result<(Arc<TlsStore>, SystemTime, Seen), Error> {
        let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
        let store = TlsStore::new(
            Arc::new(SpiffeLeaf::new()),
            clock,
            self.credentials,
            self.bundles,
        )?;
        Ok((Arc::new(store), self.not_after, self.seen))
    }

    /// What it presents.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What it was made of.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Until when its certificate is valid.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Makes what `store` needs to hold this identity; nothing is changed yet.
    pub(crate) fn prepare(self, store: &TlsStore) -> Result<TlsIdentity, Error> {
        Ok(store.prepare(self.credentials, self.bundles)?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// However short the certificates live, the CA is not asked more often.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);
