//! One verifier for both ends: the chain against the roots of the trust domain in the peer's own name.
//!
//! webpki checks signatures, validity, path length, key usages and name constraints; what a SPIFFE leaf must be
//! beyond that, [`Identify`] says. Names in DNS or common-name form are never looked at.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::verify_tls13_signature;
use rustls::server::ParsedCertificate;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::UnixTime;

use crate::error::BoxError;
use crate::error::Error;
use crate::tls::Identify;
use crate::tls::PeerId;
use crate::tls::provider;
use crate::tls::roots;

/// The roots of each trust domain that is trusted.
#[derive(Default)]
pub struct TrustBundles {
    domains: HashMap<String, Bundle>,
}

struct Bundle {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
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
    /// [`Error::Identity`] when a root is not usable or there is none.
    pub fn with_domain(
        mut self,
        trust_domain: &str,
        certificates: &[CertificateDer<'static>],
    ) -> Result<Self, Error> {
        let roots = Arc::new(roots(certificates)?);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|source| {
                Error::identity(
                    format!("the trust bundle of {trust_domain} is not usable"),
                    source,
                )
            })?;
        self.domains
            .insert(trust_domain.to_owned(), Bundle { roots, clients });
        Ok(self)
    }

    fn of(&self, trust_domain: &str) -> Result<&Bundle, BoxError> {
        let found = self.domains.get(trust_domain);
        found.ok_or_else(|| {
            format!("trust domain {trust_domain} is not among those trusted here").into()
        })
    }
}

impl fmt::Debug for TrustBundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.domains.keys()).finish()
    }
}

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

    /// See [`super::TlsStore::verify_signed`].
    pub(super) fn verify_signed(
        &self,
        certificates: &[CertificateDer<'_>],
        message: &[u8],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<PeerId, Error> {
        let invalid = |what: &str| Error::Identity {
            what: what.to_owned(),
            source: None,
        };
        let (leaf, intermediates) = certificates
            .split_first()
            .ok_or_else(|| invalid("there is no certificate in the statement"))?;
        let untrusted = |source: BoxError| {
            Error::identity("the statement's certificate is not trusted", source)
        };
        let (peer, domain) = self.identify.identify(leaf).map_err(untrusted)?;
        let bundle = self.bundles.of(&domain).map_err(untrusted)?;
        self.verify_chain(bundle, leaf, intermediates, now)
            .map_err(|source| untrusted(source.into()))?;

        let wrong = || invalid("the statement's signature is not valid");
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

    fn bundle(&self, leaf: &CertificateDer<'_>) -> Result<&Bundle, rustls::Error> {
        let (_, domain) = self.identify.identify(leaf).map_err(refused)?;
        self.bundles.of(&domain).map_err(refused)
    }

    fn verify_chain(
        &self,
        bundle: &Bundle,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &bundle.roots,
            intermediates,
            now,
            algorithms,
        )
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
        let bundle = self.bundle(end_entity)?;
        self.verify_chain(bundle, end_entity, intermediates, now)?;
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
        self.bundle(end_entity)?
            .clients
            .verify_client_cert(end_entity, intermediates, now)
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

fn refused(reason: BoxError) -> rustls::Error {
    rustls::CertificateError::Other(rustls::OtherError(Arc::from(reason))).into()
}

/// The schemes of statements signed with a certificate's key, best first.
pub(super) const SIGNATURE_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];
