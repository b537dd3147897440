//! Why a peer's RSA key is trusted: it is pinned by configuration, or the peer's own certificate signed it. What a
//! registry pins can only take trust away.
//!
//! The attestation that travels in a handshake is
//!
//! ```text
//! attestation = count:u8 { length:u16 certificate } signature       leaf first; all numbers big-endian
//! signature   = scheme:u16 bytes    over LABEL name 0x00 spki       scheme as in TLS (RFC 8446 section 4.2.3)
//! ```

use std::sync::Arc;

use mesh_auth::spiffe::SpiffeId;
use mesh_session::KeyClaim;
use mesh_session::PeerRefused;
use mesh_session::TokenContext;
use mesh_session::VerifyPeer;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use rustls_pki_types::CertificateDer;

use crate::service_token::TokenCheck;
use crate::stack::outbound::chain;

/// Signs `spki` as the key of `name` with the certificate that `credentials` hold.
///
/// # Errors
///
/// When the key of the certificate can't sign, or the chain is too long to be sent.
pub(crate) fn attest(
    credentials: &Credentials,
    name: &str,
    spki: &[u8],
) -> Result<Vec<u8>, mesh_transport::Error> {
    let chain = credentials.chain();
    let too_long =
        || mesh_transport::Error::misfit("the certificate chain is too long to attest a key with");
    let mut out = vec![u8::try_from(chain.len()).ok().ok_or_else(too_long)?];
    for certificate in chain {
        out.extend(
            u16::try_from(certificate.len())
                .ok()
                .ok_or_else(too_long)?
                .to_be_bytes(),
        );
        out.extend_from_slice(certificate);
    }
    out.extend(credentials.sign(&statement(name, spki))?);
    Ok(out)
}

/// The fingerprint that a key must have.
#[derive(Clone, Debug)]
pub(crate) enum Pin {
    /// By configuration: it stands in for the signature of the peer's certificate.
    Enough(String),
    /// By a registry, which is not trusted with that: it is asked for besides the signature.
    Besides(String),
}

/// Judges the keys and tokens that peers show in handshakes.
#[derive(Debug)]
pub(crate) struct PeerJudge {
    tls: Arc<TlsStore>,
    /// Who must be at the other end, for sessions that this node begins.
    expected: Option<PeerId>,
    /// The fingerprint that its key must have, where one is pinned.
    pinned: Option<Pin>,
    token: Option<Arc<TokenCheck>>,
}

impl PeerJudge {
    /// Accepts every peer whose certificate is trusted, for sessions that others begin.
    pub(crate) fn any(tls: Arc<TlsStore>, token: Option<Arc<TokenCheck>>) -> Self {
        Self {
            tls,
            expected: None,
            pinned: None,
            token,
        }
    }

    /// Accepts only `expected`, and only with the key of the fingerprint `pinned` where there is one.
    pub(crate) fn only(
        tls: Arc<TlsStore>,
        expected: PeerId,
        pinned: Option<Pin>,
        token: Option<Arc<TokenCheck>>,
    ) -> Self {
        Self {
            tls,
            expected: Some(expected),
            pinned,
            token,
        }
    }
}

impl VerifyPeer for PeerJudge {
    fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        if let Some(expected) = &self.expected
            && claim.name != expected.as_str()
        {
            return Err(PeerRefused::new(format!(
                "the key is of {}, not of {expected}",
                claim.name
            )));
        }
        let Some(pin) = &self.pinned else {
            return verify_attestation(&self.tls, claim);
        };
        let (Pin::Enough(pinned) | Pin::Besides(pinned)) = pin;
        if *pinned != claim.fingerprint.to_string() {
            return Err(PeerRefused::new(format!(
                "the key is {}, but {pinned} is pinned",
                claim.fingerprint
            )));
        }
        match pin {
            Pin::Enough(_) => Ok(()),
            Pin::Besides(_) => verify_attestation(&self.tls, claim),
        }
    }

    fn verify_token(
        &self,
        name: &str,
        token: &[u8],
        context: &TokenContext<'_>,
    ) -> Result<(), PeerRefused> {
        let Some(check) = &self.token else {
            return Ok(());
        };
        let refused = |reason: &str| PeerRefused::new(reason.to_owned());
        let peer: SpiffeId = name
            .parse()
            .ok()
            .ok_or_else(|| refused("its name is no spiffe id"))?;
        let token = std::str::from_utf8(token)
            .ok()
            .ok_or_else(|| refused("its token is not text"))?;
        let verified = check.verify(token, &peer, context.now.as_millis() / 1000);
        verified
            .map(|_| ())
            .map_err(|error| PeerRefused::new(chain(&error)))
    }
}

fn verify_attestation(tls: &TlsStore, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
    let (chain_der, signature) = split(claim.attestation)
        .ok_or_else(|| PeerRefused::new("the attestation of its key is malformed"))?;
    let signer = tls.verify_signed(&chain_der, &statement(claim.name, claim.spki), signature);
    let signer = signer.map_err(|error| PeerRefused::new(chain(&error)))?;
    if signer.as_str() == claim.name {
        return Ok(());
    }
    Err(PeerRefused::new(format!(
        "{signer} signed the key that is said to be of {}",
        claim.name
    )))
}

fn split(attestation: &[u8]) -> Option<(Vec<CertificateDer<'_>>, &[u8])> {
    let (count, mut rest) = attestation.split_first()?;
    let mut chain = Vec::new();
    for _ in 0..*count {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let (certificate, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        chain.push(CertificateDer::from(certificate));
        rest = after;
    }
    Some((chain, rest))
}

fn statement(name: &str, spki: &[u8]) -> Vec<u8> {
    [LABEL, name.as_bytes(), &[0], spki].concat()
}

/// Keeps these signatures apart from every other use of the certificate's key; TLS signs 64 spaces first (RFC 8446
/// section 4.4.3).
const LABEL: &[u8] = b"mesh-node: rsa identity key, version 1\0";
