//! One verifier for both ends: the chain against the roots of the trust domain in the peer's own name.
//!
//! webpki checks signatures, validity, path length, key usages and name constraints; what a SPIFFE leaf must be
//! beyond that, [`Identify`] says. Names in DNS or common-name form are never looked at.

use std::fmt;
use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::verify_tls13_signature;
use rustls::server::ParsedCertificate;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::UnixTime;

use crate::error::BoxError;
use crate::error::Error;
use crate::error::chain;
use crate::tls::Identify;
use crate::tls::PeerId;
use crate::tls::TrustBundles;
use crate::tls::live::Side;
use crate::tls::provider;

#[derive(Debug)]
pub(super) struct Verifier {
    identify: Arc<dyn Identify>,
    bundles: TrustBundles,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(identify: Arc<dyn Identify>, bundles: TrustBundles) -> Self {
        Self {
            identify,
            bundles,
            algorithms: provider().signature_verification_algorithms,
        }
    }

    pub(super) fn bundles(&self) -> &TrustBundles {
        &self.bundles
    }

    /// See [`super::TlsStore::verify_signed`].
    pub(super) fn verify_signed(
        &self,
        certificates: &[CertificateDer<'_>],
        message: &[u8],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<PeerId, Error> {
        let untrusted = |source: BoxError| {
            Error::identity("the statement's certificate is not trusted", source)
        };
        let leaf = certificates
            .first()
            .ok_or_else(|| Error::misfit("there is no certificate in the statement"))?;
        // Whoever signs offers a key, as a server does.
        self.verify(Side::Server, certificates, now)
            .map_err(|source| untrusted(source.into()))?;
        let (peer, _) = self.identify.identify(leaf).map_err(untrusted)?;

        let wrong = || Error::misfit("the statement's signature is not valid");
        let (scheme, signature) = signature.split_first_chunk::<2>().ok_or_else(wrong)?;
        let scheme = SignatureScheme::from(u16::from_be_bytes(*scheme));
        let offered = SIGNATURE_SCHEMES.contains(&scheme);
        let known = self
            .algorithms
            .mapping
            .iter()
            .find(|(known, _)| offered && *known == scheme);
        let (_, algorithms) = known.ok_or_else(wrong)?;
        let key =
            webpki::EndEntityCert::try_from(leaf).map_err(|source| untrusted(source.into()))?;
        let is_valid = algorithms
            .iter()
            .any(|one| key.verify_signature(*one, message, signature).is_ok());
        if is_valid { Ok(peer) } else { Err(wrong()) }
    }

    /// Checks `chain`, leaf first: the rules of the leaf, those of the signers that came with it, then the path to a root
    /// of the trust domain that the leaf names, and of no other.
    pub(super) fn verify(
        &self,
        side: Side,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (leaf, intermediates) = chain
            .split_first()
            .ok_or(rustls::Error::NoCertificatesPresented)?;
        let (_, domain) = self.identify.identify(leaf).map_err(refused)?;
        if intermediates.len() > MAX_INTERMEDIATES {
            let sent = intermediates.len();
            let reason = format!(
                "{sent} intermediate certificates are more than the limit of {MAX_INTERMEDIATES}"
            );
            return Err(refused(reason.into()));
        }
        for signer in intermediates {
            let checked = self.identify.check_signer(signer, &domain);
            checked.map_err(refused)?;
        }
        let bundle = self.bundles.of(&domain).map_err(refused)?;
        match side {
            Side::Client => {
                let clients = &bundle.clients;
                clients.verify_client_cert(leaf, intermediates, now)?;
            }
            Side::Server => rustls::client::verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(leaf)?,
                &bundle.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?,
        }
        Ok(())
    }

    fn verify_parts(
        &self,
        side: Side,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let leaf = std::iter::once(leaf);
        let chain: Vec<_> = leaf
            .chain(intermediates)
            .map(|one| CertificateDer::from(one.as_ref()))
            .collect();
        self.verify(side, &chain, now)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify_parts(Side::Server, end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A borrow can't follow a swap of the roots, and clients here have one identity anyway.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify_parts(Side::Client, end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn only_tls13() -> rustls::Error {
    rustls::Error::General("peers speak TLS 1.3 only".to_owned())
}

/// A reason in words: the TLS library prints only the `Debug` of what it does not know.
struct Reason(BoxError);

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self.0.as_ref()))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Reason {}

fn refused(reason: BoxError) -> rustls::Error {
    rustls::CertificateError::Other(rustls::OtherError(Arc::new(Reason(reason)))).into()
}

/// Most certificates between a root and a leaf that a peer may send: each one costs us time before anything is proven.
pub const MAX_INTERMEDIATES: usize = 8;

/// The schemes of statements signed with a certificate's key, best first.
pub(super) const SIGNATURE_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];
