//! Mutual TLS 1.3 between nodes, with an identity that is swapped whole while connections live.
//!
//! # Sources
//!
//! RFC 8446 (TLS 1.3); X509-SVID of the SPIFFE standards for what a leaf must be. Session resumption is off: a
//! resumed session would skip the verification of the peer's certificate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::Guard;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use crate::error::BoxError;
use crate::error::Error;
use crate::tls::live::Side;
use crate::tls::live::Turn;

mod bundles;
mod credentials;
mod live;
pub mod newcomer;
mod verify;

pub use self::bundles::MAX_ROOTS;
pub use self::bundles::TrustBundles;
pub use self::credentials::Credentials;
pub use self::credentials::certificates;
pub use self::live::LivePeer;
pub use self::live::PeerEnded;
pub use self::verify::MAX_INTERMEDIATES;

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

    /// Checks a certificate that signs for `trust_domain`: a root of its bundle, or one that came between root and leaf.
    ///
    /// # Errors
    ///
    /// When it breaks a rule, or names another trust domain; the text says which.
    fn check_signer(&self, signer: &CertificateDer<'_>, trust_domain: &str)
    -> Result<(), BoxError>;

    /// The last moment at which `certificate` is valid.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    fn not_after(&self, certificate: &CertificateDer<'_>) -> Result<UnixTime, BoxError>;
}

/// The identity in use, swapped whole; every new connection takes the current one.
#[derive(Debug)]
pub struct TlsStore {
    rules: Rules,
    current: ArcSwap<TlsIdentity>,
    /// Told after `current` changed.
    turns: watch::Sender<Turn>,
    /// One change at a time.
    changing: Mutex<()>,
}

/// What stays the same through all generations.
#[derive(Clone, Debug)]
struct Rules {
    identify: Arc<dyn Identify>,
    clock: Arc<dyn TimeProvider>,
}

impl Rules {
    /// A certificate whose end can't be read has ended.
    fn not_after(&self, certificate: &CertificateDer<'_>) -> UnixTime {
        let read = self.identify.not_after(certificate);
        read.unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

/// One generation of a node's identity: its credentials and whom it trusts.
pub struct TlsIdentity {
    turn: Turn,
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
        let first = TlsIdentity::build(&rules, FIRST, credentials, bundles)?;
        Ok(Self {
            rules,
            current: ArcSwap::from_pointee(first),
            turns: watch::Sender::new(FIRST),
            changing: Mutex::new(()),
        })
    }

    /// Puts a new identity in place of the current one, as [`Self::put`] does.
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
    /// [`Error::Identity`] when a root is no root of its trust domain or the TLS library refuses the identity.
    pub fn prepare(
        &self,
        credentials: Credentials,
        bundles: TrustBundles,
    ) -> Result<TlsIdentity, Error> {
        TlsIdentity::build(&self.rules, Turn::default(), credentials, bundles)
    }

    /// Puts an identity that this store prepared in place of the current one.
    ///
    /// Pools make new connections for new calls; what is in flight on the old ones finishes, then they close. Where a
    /// root or a trust domain is trusted no more, connections whose peers it vouched for end within seconds, in both
    /// directions, and no others.
    pub fn put(&self, mut next: TlsIdentity) {
        let _changing = self.changing.lock();
        let before = self.current.load();
        let has_lost = !next.verifier.bundles().covers(before.verifier.bundles());
        next.turn = Turn {
            generation: before.turn.generation + 1,
            trust: before.turn.trust + u64::from(has_lost),
        };
        let turn = next.turn;
        self.current.store(Arc::new(next));
        // Nobody listening is nobody to tell.
        self.turns.send_replace(turn);
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
        let now = now.ok_or_else(|| Error::misfit("the clock gives no time"))?;
        verifier.verify_signed(chain, message, signature, now)
    }

    /// The client at the other end of `accepted`, a finished handshake of `made_with`; to be watched as long as the
    /// connection lives.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when it showed no certificate or breaks a rule.
    pub fn client(
        self: &Arc<Self>,
        made_with: &TlsIdentity,
        accepted: &ServerConnection,
    ) -> Result<LivePeer, Error> {
        self.live(made_with, Side::Client, accepted.peer_certificates())
    }

    /// The server at the other end of `dialed`, as [`Self::client`].
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when it showed no certificate or breaks a rule.
    pub fn server(
        self: &Arc<Self>,
        made_with: &TlsIdentity,
        dialed: &ClientConnection,
    ) -> Result<LivePeer, Error> {
        self.live(made_with, Side::Server, dialed.peer_certificates())
    }

    fn live(
        self: &Arc<Self>,
        made_with: &TlsIdentity,
        side: Side,
        chain: Option<&[CertificateDer<'static>]>,
    ) -> Result<LivePeer, Error> {
        let chain = chain.unwrap_or_default();
        let leaf = chain
            .first()
            .ok_or_else(|| Error::misfit("the peer showed no certificate"))?;
        let id = self
            .identify(leaf)
            .map_err(|source| Error::identity("the peer's certificate names nobody", source))?;
        let (store, chain) = (Arc::clone(self), chain.to_vec());
        Ok(LivePeer::new(store, (id, side), chain, made_with.turn))
    }

    /// Whether the current identity trusts `chain` now.
    fn verify(&self, side: Side, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let now = self.rules.clock.current_time();
        let now = now.ok_or(rustls::Error::FailedToGetCurrentTime)?;
        self.current.load().verifier.verify(side, chain, now)
    }
}

impl TlsIdentity {
    fn build(
        rules: &Rules,
        turn: Turn,
        credentials: Credentials,
        bundles: TrustBundles,
    ) -> Result<Self, Error> {
        bundles.check(&*rules.identify)?;
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
            turn,
            credentials,
            verifier,
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Counts up with every replacement.
    pub fn generation(&self) -> u64 {
        self.turn.generation
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

    /// As [`Self::client`], for connections that carry `protocol` (ALPN) and nothing else.
    pub fn client_for(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        self.client_for_each(&[protocol])
    }

    /// As [`Self::client_for`], for any of several protocols, the preferred one first.
    pub fn client_for_each(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.client);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // A ticket is for the protocol of the connection that it came on.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }

    /// As [`Self::server`], for connections that carry `protocol` (ALPN) and nothing else.
    pub fn server_for(&self, protocol: &[u8]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.server);
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("generation", &self.turn.generation)
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

const FIRST: Turn = Turn {
    generation: 1,
    trust: 0,
};
