//! Two nodes that know each other's keys, and a session between them.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Instant;

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

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const ALICE: &str = "spiffe://example.org/alice";
pub(crate) const BOB: &str = "spiffe://example.org/bob";

/// The same instant whenever it is asked for.
#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to count from"
)]
pub(crate) fn now() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START
}

fn generate() -> Arc<RsaKeyPair> {
    Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B2048).unwrap())
}

pub(crate) static ALICE_KEY: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(generate);
pub(crate) static BOB_KEY: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(generate);
pub(crate) static EVE_KEY: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(generate);

pub(crate) fn local(name: &str, key: &Arc<RsaKeyPair>, config: Config) -> Arc<Local> {
    let identity = LocalIdentity::new(name.to_owned(), Arc::clone(key), b"shown".to_vec());
    Arc::new(Local::new(config, aws_lc(), Arc::new(SystemRandom::new()), identity).unwrap())
}

pub(crate) fn alice() -> Arc<Local> {
    local(ALICE, &ALICE_KEY, Config::default())
}

pub(crate) fn bob() -> Arc<Local> {
    local(BOB, &BOB_KEY, Config::default())
}

/// Knows one peer by name, key and token.
pub(crate) struct Pinned {
    pub(crate) name: &'static str,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) token: &'static [u8],
    pub(crate) audience: &'static str,
}

impl Pinned {
    pub(crate) fn alice() -> Self {
        Self {
            name: ALICE,
            fingerprint: ALICE_KEY.public().fingerprint(),
            token: b"alice's token",
            audience: BOB,
        }
    }

    pub(crate) fn bob() -> Self {
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
pub(crate) struct Handshake {
    pub(crate) responder: Responder,
    pub(crate) offer: Vec<u8>,
    pub(crate) init: Vec<u8>,
    pub(crate) reply: Vec<u8>,
    pub(crate) alice: Arc<Session>,
    pub(crate) bob: Arc<Session>,
}

pub(crate) fn handshake_of(alice: &Local, bob: Arc<Local>) -> Handshake {
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

pub(crate) fn handshake() -> Handshake {
    handshake_of(&alice(), bob())
}

pub(crate) fn seal(sealer: &mut Sealer, flags: Flags, text: &[u8]) -> BytesMut {
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(text);
    sealer.seal(flags, &mut record).unwrap();
    record
}

/// Memory of this process that is in use: `/proc/self/statm`, second number, in pages of 4 KiB.
pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}
