//! Two nodes that know each other's keys, and a session between them.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::Arc;
use std::sync::LazyLock;

use bytes::BytesMut;
use mesh_crypto::Fingerprint;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_session::Config;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responder;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;

pub const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
pub const ALICE: &str = "spiffe://example.org/alice";
pub const BOB: &str = "spiffe://example.org/bob";

fn generate() -> Arc<RsaKeyPair> {
    Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B2048).unwrap())
}

pub static ALICE_KEY: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(generate);
pub static BOB_KEY: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(generate);
pub static EVE_KEY: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(generate);

pub fn local(name: &str, key: &Arc<RsaKeyPair>, config: Config) -> Arc<Local> {
    let identity = LocalIdentity::new(name.to_owned(), Arc::clone(key), b"shown".to_vec());
    Arc::new(Local::new(config, aws_lc(), Arc::new(SystemRandom::new()), identity).unwrap())
}

pub fn alice() -> Arc<Local> {
    local(ALICE, &ALICE_KEY, Config::default())
}

pub fn bob() -> Arc<Local> {
    local(BOB, &BOB_KEY, Config::default())
}

/// Knows one peer by name, key and token.
pub struct Pinned {
    pub name: &'static str,
    pub fingerprint: Fingerprint,
    pub token: &'static [u8],
    pub audience: &'static str,
}

impl Pinned {
    pub fn alice() -> Self {
        Self {
            name: ALICE,
            fingerprint: ALICE_KEY.public().fingerprint(),
            token: b"alice's token",
            audience: BOB,
        }
    }

    pub fn bob() -> Self {
        Self {
            name: BOB,
            fingerprint: BOB_KEY.public().fingerprint(),
            token: b"bob's token",
            audience: ALICE,
        }
    }
}

impl VerifyPeer for Pinned {
    fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        let is_known = claim.name == self.name && claim.fingerprint == self.fingerprint;
        if is_known && claim.attestation == b"shown" {
            Ok(())
        } else {
            Err(PeerRefused::new("unknown key"))
        }
    }

    fn verify_token(
        &self,
        name: &str,
        token: &[u8],
        context: &TokenContext<'_>,
    ) -> Result<(), PeerRefused> {
        let is_bound = context.fingerprint == self.fingerprint && context.audience == self.audience;
        if is_bound && name == self.name && token == self.token {
            Ok(())
        } else {
            Err(PeerRefused::new("bad token"))
        }
    }
}

/// Everything that crosses the wire, and both ends of the session.
pub struct Handshake {
    pub responder: Responder,
    pub offer: Vec<u8>,
    pub init: Vec<u8>,
    pub reply: Vec<u8>,
    pub alice: Arc<Session>,
    pub bob: Arc<Session>,
}

pub fn handshake_of(alice: &Local, bob: Arc<Local>) -> Handshake {
    let responder = Responder::new(bob).unwrap();
    let offer = responder.offer().to_vec();
    let peer = PeerKey::from_offer(alice, &offer, &Pinned::bob()).unwrap();
    let (initiator, init) = Initiator::start(alice, &peer, b"alice's token", NOW).unwrap();
    let checked = responder.check(&init, NOW).unwrap();
    let (reply, bob) = responder
        .respond(&checked, b"bob's token", &Pinned::alice(), NOW)
        .unwrap();
    let alice = initiator.finish(&reply, &Pinned::bob(), NOW).unwrap();
    Handshake {
        responder,
        offer,
        init,
        reply,
        alice: Arc::new(alice),
        bob: Arc::new(bob),
    }
}

pub fn handshake() -> Handshake {
    handshake_of(&alice(), bob())
}

pub fn seal(sealer: &mut Sealer, flags: Flags, text: &[u8]) -> BytesMut {
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(text);
    sealer.seal(flags, &mut record).unwrap();
    record
}
