//! Mutual TLS 1.3 between nodes, with an identity that is swapped whole while connections live.
//!
//! # Sources
//!
//! RFC 8446 (TLS 1.3); X509-SVID of the SPIFFE standards for what a leaf must be. Session resumption is off: a
//! resumed session would skip the verification of the peer's certificate.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::Guard;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::UnixTime;
use rustls_pki_types::pem::PemObject;

use crate::error::BoxError;
use crate::error::Error;

mod verify;

pub use verify::TrustBundles;

/// The verified name of a peer, a SPIFFE id in the mesh. Cheap to clone and compare.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PeerId(Arc<str>);

impl PeerId {
    /// The name as it stands in the certificate.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads from a certificate who its holder is, refusing leaves that break the rules of the naming scheme.
pub trait Identify: fmt::Debug + Send + Sync {
    /// The name in `leaf`, and the trust domain whose roots must have signed it.
    ///
    /// # Errors
    ///
    /// When the leaf breaks a rule; the text says which.
    fn identify(&self, leaf: &CertificateDer<'_>) -> Result<(PeerId, String), BoxError>;
}

/// What a node shows of itself: its certificate chain and key.
#[derive(Clone)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<CertifiedKey>,
}

impl Credentials {
    /// From PEM: the chain with the leaf first, and its private key (PKCS#8 or SEC1).
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when either can't be read or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| {
            Error::identity("the private key is not PEM of PKCS#8 or SEC1", source)
        })?;
        Self::new(certificates(chain)?, key)
    }

    /// From the chain, leaf first, and the leaf's private key.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when they do not belong together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let key = CertifiedKey::from_der(chain.clone(), key, &provider()).map_err(|source| {
            Error::identity(
                "the certificate and the private key do not belong together",
                source,
            )
        })?;
        Ok(Self {
            chain,
            key: Arc::new(key),
        })
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Signs `message` with the leaf's key: ECDSA P-256 with SHA-256 in the mesh's own certificates.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when the key offers none of the schemes that peers verify.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signer = self
            .key
            .key
            .choose_scheme(verify::SIGNATURE_SCHEMES)
            .ok_or_else(|| Error::Identity {
                what: "the certificate's key is of no supported type; use ECDSA P-256".to_owned(),
                source: None,
            })?;
        let scheme = u16::from(signer.scheme()).to_be_bytes();
        let signature = signer
            .sign(message)
            .map_err(|source| Error::identity("could not sign", source))?;
        Ok([&scheme, signature.as_slice()].concat())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// Reads all certificates of a PEM text.
///
/// # Errors
///
/// [`Error::Identity`] when it holds none or one is damaged.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|source| Error::identity("a certificate is damaged PEM", source))?;
    if read.is_empty() {
        return Err(Error::Identity {
            what: "there is no certificate in the PEM text".to_owned(),
            source: None,
        });
    }
    Ok(read)
}

/// The identity in use, swapped whole; every new connection takes the current one.
#[derive(Debug)]
pub struct TlsStore {
    rules: Rules,
    current: ArcSwap<TlsIdentity>,
}

/// What stays the same through all generations.
#[derive(Clone, Debug)]
struct Rules {
    identify: Arc<dyn Identify>,
    clock: Arc<dyn TimeProvider>,
}

/// One generation of a node's identity: its credentials and whom it trusts.
pub struct TlsIdentity {
    generation: u64,
    credentials: Credentials,
    verifier: Arc<verify::Verifier>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl TlsStore {
    /// A store that holds `credentials` and trusts the roots in `bundles`; certificates are judged by `clock`.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when the TLS library refuses them.
    pub fn new(
        identify: Arc<dyn Identify>,
        clock: Arc<dyn TimeProvider>,
        credentials: Credentials,
        bundles: TrustBundles,
    ) -> Result<Self, Error> {
        let rules = Rules { identify, clock };
        let first = TlsIdentity::build(&rules, 1, credentials, bundles)?;
        Ok(Self {
            rules,
            current: ArcSwap::from_pointee(first),
        })
    }

    /// Puts a new identity in place of the current one. Open connections stay; pools stop handing them out.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`]; then the current one stays.
    pub fn replace(&self, credentials: Credentials, bundles: TrustBundles) -> Result<(), Error> {
        self.put(self.prepare(credentials, bundles)?);
        Ok(())
    }

    /// Makes a new identity, which is not in use before it is [put](Self::put) in place: all that can fail.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when the TLS library refuses it.
    pub fn prepare(
        &self,
        credentials: Credentials,
        bundles: TrustBundles,
    ) -> Result<TlsIdentity, Error> {
        TlsIdentity::build(&self.rules, 0, credentials, bundles)
    }

    /// Puts an identity that this store prepared in place of the current one. Open connections stay; pools stop handing
    /// them out.
    pub fn put(&self, mut next: TlsIdentity) {
        next.generation = self.current.load().generation + 1;
        self.current.store(Arc::new(next));
    }

    /// The identity now.
    pub fn current(&self) -> Guard<Arc<TlsIdentity>> {
        self.current.load()
    }

    /// Who holds `leaf`.
    ///
    /// # Errors
    ///
    /// When the leaf breaks a rule.
    pub fn identify(&self, leaf: &CertificateDer<'_>) -> Result<PeerId, BoxError> {
        self.rules.identify.identify(leaf).map(|(peer, _)| peer)
    }

    /// Verifies a statement that a peer signed with [`Credentials::sign`]: the chain against the roots of its
    /// own trust domain, then the signature over `message` with the leaf's key.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] with the step that failed.
    pub fn verify_signed(
        &self,
        chain: &[CertificateDer<'_>],
        message: &[u8],
        signature: &[u8],
    ) -> Result<PeerId, Error> {
        let verifier = &self.current.load().verifier;
        let now = self.rules.clock.current_time();
        let now = now.ok_or_else(|| Error::Identity {
            what: "the clock gives no time".to_owned(),
            source: None,
        })?;
        verifier.verify_signed(chain, message, signature, now)
    }
}

impl TlsIdentity {
    fn build(
        rules: &Rules,
        generation: u64,
        credentials: Credentials,
        bundles: TrustBundles,
    ) -> Result<Self, Error> {
        let rejected = |source| Error::identity("the TLS library refused the identity", source);
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(CertifiedKey::clone(
            &credentials.key,
        )));

        let verifier = Arc::new(verify::Verifier::new(Arc::clone(&rules.identify), bundles));
        let mut client = ClientConfig::builder_with_details(provider(), Arc::clone(&rules.clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(rejected)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<_>)
            .with_client_cert_resolver(Arc::clone(&resolver) as Arc<_>);
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_sni = false;

        let mut server = ServerConfig::builder_with_details(provider(), Arc::clone(&rules.clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(rejected)?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<_>)
            .with_cert_resolver(resolver);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        Ok(Self {
            generation,
            credentials,
            verifier,
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Counts up with every replacement.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The certificate chain and key.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// For connecting to peers.
    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    /// For accepting peers.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("generation", &self.generation)
            .field("credentials", &self.credentials)
            .field("trusts", &self.verifier)
            .finish_non_exhaustive()
    }
}

/// As [`TlsStore::verify_signed`], for whoever has no identity of its own: a statement judged by `bundles`, under the
/// naming rules of `identify`, as of `at`.
///
/// # Errors
///
/// [`Error::Identity`] with the step that failed.
pub fn verify_statement(
    (identify, bundles): (Arc<dyn Identify>, TrustBundles),
    chain: &[CertificateDer<'_>],
    (message, signature): (&[u8], &[u8]),
    at: UnixTime,
) -> Result<PeerId, Error> {
    verify::Verifier::new(identify, bundles).verify_signed(chain, message, signature, at)
}

/// The library's own provider, so that no process-wide default can change what is offered.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Roots from certificates.
pub(crate) fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|source| {
            Error::identity(
                "a root certificate of the trust bundle is not usable",
                source,
            )
        })?;
    }
    Ok(store)
}
