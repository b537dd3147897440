//! The two ends: who they are to each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use mesh_crypto::Fingerprint;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_session::Config;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerRefused;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_transport::BoxError;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::certificates;

use super::Transport;
use super::peer::Hello;
use super::peer::PeerProcess;
use super::peer::Ready;
use crate::node::wall_clock;

/// One end, and what it knows of the other.
pub(super) struct Ends {
    /// Where the answerer listens; unspecified at the answerer itself.
    pub(super) address: SocketAddr,
    pub(super) local: Arc<Local>,
    pub(super) pinned: Arc<Pinned>,
    pub(super) tls: Arc<TlsStore>,
    pub(super) peer: PeerId,
}

/// Trusts one key for one name. There are no tokens.
#[derive(Debug)]
pub(super) struct Pinned {
    name: String,
    fingerprint: Fingerprint,
}

impl Ends {
    /// Gets acquainted with the answering process.
    pub(super) fn meet(peer: &mut PeerProcess, transport: Transport) -> Result<Self, BoxError> {
        let key = Self::key()?;
        let domain = TrustDomain::parse(TRUST_DOMAIN)?;
        let authority = Authority::generate(&domain, VALIDITY, wall_clock())?;
        let issue = |service| {
            let id = SpiffeId::for_service(&domain, service)?;
            Ok::<_, BoxError>(authority.issue(&id, VALIDITY, wall_clock(), &[])?)
        };
        let (own, theirs) = (issue(CALLER)?, issue(ANSWERER)?);
        let hello = Hello {
            transport,
            fingerprint: key.public().fingerprint().to_string(),
            certificate_pem: theirs.certificate_pem,
            key_pem: theirs.key_pem.to_string(),
            authority_pem: authority.certificate_pem().to_owned(),
        };
        let Ready {
            address,
            fingerprint,
        } = peer.introduce(&hello)?;
        Self::new(
            (CALLER, ANSWERER),
            (key, fingerprint.parse()?),
            (&own.certificate_pem, &own.key_pem),
            (&hello.authority_pem, address),
        )
    }

    /// The answerer's end.
    pub(super) fn of_answerer(key: RsaKeyPair, hello: &Hello) -> Result<Self, BoxError> {
        Self::new(
            (ANSWERER, CALLER),
            (key, hello.fingerprint.parse()?),
            (&hello.certificate_pem, &hello.key_pem),
            (&hello.authority_pem, SocketAddr::from(([0, 0, 0, 0], 0))),
        )
    }

    /// An identity key; it takes a second or so.
    pub(super) fn key() -> Result<RsaKeyPair, BoxError> {
        Ok(RsaKeyPair::generate(&*aws_lc(), RsaBits::B4096)?)
    }

    fn new(
        (own, theirs): (&str, &str),
        (key, fingerprint): (RsaKeyPair, Fingerprint),
        (certificate_pem, key_pem): (&str, &str),
        (authority_pem, address): (&str, SocketAddr),
    ) -> Result<Self, BoxError> {
        let domain = TrustDomain::parse(TRUST_DOMAIN)?;
        let name =
            |service| Ok::<_, BoxError>(SpiffeId::for_service(&domain, service)?.to_string());
        let identity = LocalIdentity::new(name(own)?, Arc::new(key), Vec::new());
        let random = Arc::new(SystemRandom::new());
        let local = Local::new(Config::default(), aws_lc(), random, identity)?;
        let roots = certificates(authority_pem.as_bytes())?;
        let bundles = TrustBundles::new().with_domain(TRUST_DOMAIN, &roots)?;
        let credentials = Credentials::from_pem(certificate_pem.as_bytes(), key_pem.as_bytes())?;
        let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
        let leaf = Arc::new(SpiffeLeaf::new());
        Ok(Self {
            address,
            local: Arc::new(local),
            pinned: Arc::new(Pinned {
                name: name(theirs)?,
                fingerprint,
            }),
            tls: Arc::new(TlsStore::new(leaf, clock, credentials, bundles)?),
            peer: PeerId::new(name(theirs)?),
        })
    }
}

impl VerifyPeer for Pinned {
    fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        if claim.name == self.name && claim.fingerprint == self.fingerprint {
            Ok(())
        } else {
            Err(PeerRefused::new("the key is not the pinned one"))
        }
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}

/// The wall clock, as handshakes see it.
pub(super) fn unix_now() -> UnixTime {
    let since = wall_clock()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

const TRUST_DOMAIN: &str = "bench.mesh";
const CALLER: &str = "caller";
pub(super) const ANSWERER: &str = "answerer";
/// Longer than any run.
const VALIDITY: Duration = Duration::from_hours(24 * 365);
