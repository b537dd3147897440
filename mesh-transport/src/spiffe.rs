//! SPIFFE ids as the names that TLS verifies: the leaf rules of the X509-SVID specification.

use rustls_pki_types::CertificateDer;

use crate::error::BoxError;
use crate::tls::Identify;
use crate::tls::PeerId;

/// Reads the SPIFFE id out of an X509-SVID.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SpiffeLeaf;

impl SpiffeLeaf {
    /// The rules; they have no settings.
    pub fn new() -> Self {
        Self
    }
}

impl Identify for SpiffeLeaf {
    fn identify(&self, leaf: &CertificateDer<'_>) -> Result<(PeerId, String), BoxError> {
        let id = mesh_auth::svid::leaf_identity(leaf)?;
        Ok((PeerId::new(id.to_string()), id.trust_domain().to_string()))
    }
}
