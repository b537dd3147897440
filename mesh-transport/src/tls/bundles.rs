//! Whom a node trusts: the roots of each trust domain, which speak for that domain and for no other.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;

use crate::error::BoxError;
use crate::error::Error;
use crate::tls::Identify;
use crate::tls::provider;

/// The roots of each trust domain that is trusted: one's own, and those one federates with.
///
/// A peer's chain is checked against the roots of the trust domain in the peer's own name, so the authority of one
/// domain can't name workloads of another (X509-SVID section 5.2, SPIFFE Trust Domain and Bundle section 3).
#[derive(Default)]
pub struct TrustBundles {
    domains: HashMap<String, Bundle>,
}

pub(super) struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
}

impl TrustBundles {
    /// Trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts `certificates` as the roots of `trust_domain`, in place of those it had.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when a root is not usable, or there is none or more than [`MAX_ROOTS`].
    pub fn with_domain(
        mut self,
        trust_domain: &str,
        certificates: &[CertificateDer<'static>],
    ) -> Result<Self, Error> {
        if certificates.len() > MAX_ROOTS {
            return Err(Error::misfit(format!(
                "the trust bundle of {trust_domain} has {} roots, more than the limit of {MAX_ROOTS}",
                certificates.len()
            )));
        }
        let unusable = |source: BoxError| {
            Error::identity(
                format!("the trust bundle of {trust_domain} is not usable"),
                source,
            )
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            let added = roots.add(certificate.clone());
            added.map_err(|source| unusable(source.into()))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|source| unusable(source.into()))?;
        let bundle = Bundle {
            certificates: certificates.to_vec(),
            roots,
            clients,
        };
        self.domains.insert(trust_domain.to_owned(), bundle);
        Ok(self)
    }

    /// Every root may sign for the domain that it stands for.
    pub(super) fn check(&self, identify: &dyn Identify) -> Result<(), Error> {
        for (domain, bundle) in &self.domains {
            for root in &bundle.certificates {
                identify.check_signer(root, domain).map_err(|source| {
                    Error::identity(
                        format!("a certificate in the trust bundle of {domain} is no root of it"),
                        source,
                    )
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn of(&self, trust_domain: &str) -> Result<&Bundle, BoxError> {
        let found = self.domains.get(trust_domain);
        found.ok_or_else(|| {
            format!("trust domain {trust_domain} is not among those trusted here").into()
        })
    }

    /// Whether every root of `other` is a root of the same trust domain here.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.domains.iter().all(|(domain, before)| {
            let now = self.domains.get(domain);
            now.is_some_and(|now| {
                let mut roots = before.roots.roots.iter();
                roots.all(|root| now.roots.roots.contains(root))
            })
        })
    }
}

impl fmt::Debug for TrustBundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.domains.keys()).finish()
    }
}

/// Most roots of one trust domain: far more than a rotation ever has at once.
pub const MAX_ROOTS: usize = 1_000;
