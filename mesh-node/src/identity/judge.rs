//! Whether what a source gave is an identity of this node: judged whole, before anything of it is used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::svid;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::Identify as _;
use mesh_transport::tls::TlsIdentity;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;

use crate::error::Error;
use crate::identity::Material;
use crate::stack::outbound::chain;

/// What a node's identity must be.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    id: SpiffeId,
}

/// An identity that this node may take over.
#[derive(Debug)]
pub(crate) struct Identity {
    left_out: Vec<String>,
    material: Material,
    credentials: Credentials,
    bundles: TrustBundles,
    validity: Validity,
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// The roots that are trusted, by trust domain.
pub(crate) type Roots = BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>;

impl Judge {
    /// Takes identities of `id` alone.
    pub(crate) fn new(id: SpiffeId) -> Self {
        Self { id }
    }

    /// Takes over `material` if its leaf is an X509-SVID of this node and valid at `now`, its key is the leaf's, and the
    /// roots of our own trust domain are usable and vouch for the leaf. Another domain whose roots are not usable is left
    /// out, which the identity tells.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] or [`Error::Transport`] with the first of these that does not hold.
    pub(crate) fn judge(&self, mut material: Material, now: SystemTime) -> Result<Identity, Error> {
        let leaf = material.chain.first();
        let leaf = leaf.ok_or_else(|| Error::missing("there is no certificate".to_owned()))?;
        let found = svid::leaf_identity(leaf).map_err(|source| {
            Error::config(
                "the first certificate is no X509-SVID; the leaf comes first, its chain behind it",
                source,
            )
        })?;
        if found != self.id {
            return Err(Error::missing(format!(
                "the certificate is of {found}, but this node is {}; set service.spiffe_id",
                self.id
            )));
        }
        let facts = svid::inspect(leaf)
            .map_err(|source| Error::config("the certificate can't be read", source))?;
        let validity = Validity {
            not_before: facts.not_before,
            not_after: facts.not_after,
        };
        if now < validity.not_before || now >= validity.not_after {
            let (from, to) = (
                humantime::format_rfc3339(validity.not_before),
                humantime::format_rfc3339(validity.not_after),
            );
            return Err(Error::missing(format!(
                "the certificate of {found} is valid from {from} to {to}, which is not now"
            )));
        }
        let credentials = Credentials::new(material.chain.clone(), material.key.clone_key())?;
        let left_out = self.leave_out(&mut material.bundles);
        vouched_for(&credentials, trust(&material.bundles)?, now)?;
        Ok(Identity {
            left_out,
            credentials,
            bundles: trust(&material.bundles)?,
            validity,
            material,
        })
    }

    /// Leaves out other domains whose roots are not usable, and says why.
    fn leave_out(&self, bundles: &mut Roots) -> Vec<String> {
        let mut left_out = Vec::new();
        bundles.retain(|domain, roots| {
            let is_ours = domain == self.id.trust_domain();
            match usable(domain, roots) {
                Err(error) if !is_ours => {
                    left_out.push(format!("nobody of {domain} is trusted: {}", chain(&error)));
                    false
                }
                _ => true,
            }
        });
        left_out
    }
}

/// Whether connections could be verified by `roots` of `domain`.
///
/// # Errors
///
/// [`Error::Config`] or [`Error::Transport`] with why not.
pub(super) fn usable(domain: &TrustDomain, roots: &[CertificateDer<'static>]) -> Result<(), Error> {
    TrustBundles::new().with_domain(domain.as_str(), roots)?;
    for root in roots {
        SpiffeLeaf::new()
            .check_signer(root, domain.as_str())
            .map_err(|source| {
                Error::missing(format!("a root of {domain} is of no use: {source}"))
            })?;
    }
    Ok(())
}

impl Identity {
    /// A store that holds this identity.
    pub(crate) fn store(&self) -> Result<TlsStore, Error> {
        Ok(TlsStore::new(
            Arc::new(SpiffeLeaf::new()),
            Arc::new(rustls::time_provider::DefaultTimeProvider),
            self.credentials.clone(),
            trust(&self.material.bundles)?,
        )?)
    }

    /// What the source gave.
    pub(crate) fn material(&self) -> &Material {
        &self.material
    }

    /// What it presents.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The certificates, leaf first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.material.chain
    }

    /// Whom it trusts.
    pub(crate) fn roots(&self) -> &Roots {
        &self.material.bundles
    }

    /// Which trust domains that the source gave are left out, and why.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// How long its certificate is valid.
    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// Makes what `store` needs to hold this identity; nothing is changed yet.
    pub(crate) fn prepare(self, store: &TlsStore) -> Result<TlsIdentity, Error> {
        Ok(store.prepare(self.credentials, self.bundles)?)
    }
}

fn trust(roots: &Roots) -> Result<TrustBundles, Error> {
    let mut bundles = TrustBundles::new();
    for (domain, roots) in roots {
        bundles = bundles.with_domain(domain.as_str(), roots)?;
    }
    Ok(bundles)
}

/// Makes the very check that peers will make.
fn vouched_for(
    credentials: &Credentials,
    bundles: TrustBundles,
    now: SystemTime,
) -> Result<(), Error> {
    let statement = credentials.sign(STATEMENT)?;
    let store = TlsStore::new(
        Arc::new(SpiffeLeaf::new()),
        Arc::new(At(now)),
        credentials.clone(),
        bundles,
    )?;
    let verified = store.verify_signed(credentials.chain(), STATEMENT, &statement);
    verified.map(drop).map_err(|source| {
        Error::config(
            "the roots of our own trust domain do not vouch for the certificate; peers would refuse it",
            source,
        )
    })
}

/// A clock that stands still.
#[derive(Debug)]
struct At(SystemTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// Never sent to anybody.
const STATEMENT: &[u8] = b"mesh-node: is this identity whole";
