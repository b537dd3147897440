//! SPIFFE ids as the names that TLS verifies: the rules of the X509-SVID specification for leaf and signer.

use std::time::SystemTime;

use mesh_auth::svid;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;

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
        let id = svid::leaf_identity(leaf)?;
        Ok((PeerId::new(id.to_string()), id.trust_domain().to_string()))
    }

    fn check_signer(
        &self,
        signer: &CertificateDer<'_>,
        trust_domain: &str,
    ) -> Result<(), BoxError> {
        match svid::signing_identity(signer)? {
            Some(named) if named.as_str() != trust_domain => {
                Err(format!("it signs for {named}, not for {trust_domain}").into())
            }
            _ => Ok(()),
        }
    }

    fn not_after(&self, certificate: &CertificateDer<'_>) -> Result<UnixTime, BoxError> {
        let not_after = svid::validity(certificate)?.1;
        let since = not_after.duration_since(SystemTime::UNIX_EPOCH);
        Ok(UnixTime::since_unix_epoch(since.unwrap_or_default()))
    }
}
