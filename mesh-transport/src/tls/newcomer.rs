//! TLS 1.3 with somebody who may have no certificate yet: how a node gets its first one.
//!
//! The server always proves itself. A client may show no certificate; one that it shows must be as good as anywhere else.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::ServerConfig;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;

use super::Credentials;
use super::Identify;
use super::TrustBundles;
use super::provider;
use super::verify::Verifier;
use crate::error::Error;

/// For connecting with `credentials`, or without before there are any, to a server that `bundles` vouch for. Speaks
/// HTTP/1.1; who answered is to be asked of its certificate.
///
/// # Errors
///
/// [`Error::Identity`] when the TLS library refuses them.
pub fn client(
    identify: Arc<dyn Identify>,
    clock: Arc<dyn TimeProvider>,
    bundles: TrustBundles,
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(Verifier::new(identify, bundles));
    let builder = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(rejected)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(resolver(credentials)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// For accepting clients, those without a certificate too. Speaks HTTP/1.1; who came is to be asked of the certificate,
/// if one was shown.
///
/// # Errors
///
/// [`Error::Identity`] when the TLS library refuses them.
pub fn server(
    identify: Arc<dyn Identify>,
    clock: Arc<dyn TimeProvider>,
    bundles: TrustBundles,
    credentials: &Credentials,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = Arc::new(Optional(Verifier::new(identify, bundles)));
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(rejected)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver(credentials));
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn resolver(credentials: &Credentials) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(CertifiedKey::clone(
        &credentials.key,
    )))
}

fn rejected(source: rustls::Error) -> Error {
    Error::identity("the TLS library refused the identity", source)
}

/// The verifier of all connections, but content with no certificate at all.
#[derive(Debug)]
struct Optional(Verifier);

impl ClientCertVerifier for Optional {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls12_signature(&self.0, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls13_signature(&self.0, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(&self.0)
    }
}

const HTTP_1: &[u8] = b"http/1.1";
