//! What stays of a session in memory when it was dropped, or went on to its next epoch: none of its secrets.
//!
//! The handshake is that of a file of `vectors/`, made again, so that what it agrees on is known beforehand.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

#[expect(dead_code, reason = "it serves other tests too")]
#[path = "../../mesh-crypto/tests/support/memory.rs"]
mod memory;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::BytesMut;
use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::MacKey;
use mesh_crypto::Random;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::agreement::MlKem768Key;
use mesh_crypto::agreement::X25519Key;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;
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
use mesh_session::Suite;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use serde_json::Value;

use crate::memory::Canary;
use crate::memory::alone;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// Says yes to every key and token.
struct Trusting;

impl VerifyPeer for Trusting {
    fn verify_key(&self, _: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}

/// The default engine in all but RSA, whose other engine takes its randomness from outside, so that a handshake can be
/// made again.
#[derive(Debug)]
struct Mixed {
    main: Arc<dyn Engine>,
    rsa: Arc<dyn Engine>,
}

impl Engine for Mixed {
    fn name(&self) -> &'static str {
        "mixed"
    }

    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.main.sha256(parts)
    }

    fn mac_key(&self, key: &[u8]) -> MacKey {
        self.main.mac_key(key)
    }

    fn aead_key(
        &self,
        algorithm: AeadAlgorithm,
        key: &[u8],
    ) -> Result<AeadKey, mesh_crypto::Error> {
        self.main.aead_key(algorithm, key)
    }

    fn x25519_key(&self, random: &dyn Random) -> Result<X25519Key, mesh_crypto::Error> {
        self.main.x25519_key(random)
    }

    fn ml_kem_768_key(&self, random: &dyn Random) -> Result<MlKem768Key, mesh_crypto::Error> {
        self.main.ml_kem_768_key(random)
    }

    fn ml_kem_768_encapsulate(
        &self,
        key: &[u8],
        random: &dyn Random,
    ) -> Result<(Vec<u8>, Secret), mesh_crypto::Error> {
        self.main.ml_kem_768_encapsulate(key, random)
    }

    fn generate_rsa(&self, bits: RsaBits) -> Result<RsaKeyPair, mesh_crypto::Error> {
        self.rsa.generate_rsa(bits)
    }

    fn rsa_from_pkcs8(&self, der: &Secret) -> Result<RsaKeyPair, mesh_crypto::Error> {
        self.rsa.rsa_from_pkcs8(der)
    }

    fn rsa_from_spki(&self, der: &[u8]) -> Result<RsaPublicKey, mesh_crypto::Error> {
        self.rsa.rsa_from_spki(der)
    }
}

/// The bytes of `SHA-256(seed ‖ n)` for n = 0, 1, 2 …, as the vectors were made with.
struct Scripted(&'static str, AtomicU64);

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Random for Scripted {
    fn fill(&self, out: &mut [u8]) -> Result<(), mesh_crypto::Error> {
        for chunk in out.chunks_mut(32) {
            let count = self.1.fetch_add(1, Ordering::Relaxed);
            let block = aws_lc().sha256(&[self.0.as_bytes(), &count.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

/// A file of vectors whose handshake needs no ML-KEM.
struct Vectors(Value);

impl Vectors {
    fn read() -> Self {
        let text = include_str!("../vectors/x25519-aes256gcm-hmac.json");
        Self(serde_json::from_str(text).unwrap())
    }

    /// A secret of the file, or a part of one.
    fn canary(value: &Value, bytes: std::ops::Range<usize>) -> Canary {
        let digits = value.as_str().unwrap();
        Canary::from_hex(digits.get(bytes.start * 2..bytes.end * 2).unwrap())
    }

    /// What leads to the keys of the session, by name.
    fn canaries(&self) -> Vec<(&'static str, Canary)> {
        let of = |name: &'static str| (name, Self::canary(&self.0[name], 0..32));
        let keys = &self.0["epochs"][0]["keys"];
        let mut all = vec![
            of("chain_0"),
            of("resumption"),
            of("prk_i"),
            of("prk"),
            of("d_o"),
            of("d_e"),
            of("box_i"),
            of("box_r"),
            ("key_ir", Self::canary(keys, 0..32)),
            ("mac_ir", Self::canary(keys, 44..76)),
            ("key_ri", Self::canary(keys, 76..108)),
            ("mac_ri", Self::canary(keys, 120..152)),
        ];
        all.push((
            "chain_1",
            Self::canary(&self.0["epochs"][1]["chain"], 0..32),
        ));
        all
    }

    fn node(&self, engine: &Arc<dyn Engine>, [name, key, seed]: [&'static str; 3]) -> Arc<Local> {
        let digits = self.0[key].as_str().unwrap();
        let canary = Canary::from_hex(digits);
        let mut der = vec![0; canary.len()];
        canary.write(&mut der);
        let key = engine.rsa_from_pkcs8(&Secret::new(der)).unwrap();
        let identity = LocalIdentity::new(name.to_owned(), Arc::new(key), b"shown".to_vec());
        let random = Arc::new(Scripted(seed, AtomicU64::new(0)));
        let config = Config::default().with_suites(vec![Suite::CLASSIC]);
        Arc::new(Local::new(config, Arc::clone(engine), random, identity).unwrap())
    }

    /// The session of the file, at both ends; all else is dropped.
    fn session(&self, engine: &Arc<dyn Engine>) -> [Arc<Session>; 2] {
        let initiator = [
            "spiffe://example.org/user-service",
            "initiator_pkcs8",
            "initiator",
        ];
        let responder = [
            "spiffe://example.org/order-service",
            "responder_pkcs8",
            "responder",
        ];
        let alice = self.node(engine, initiator);
        let responder = Responder::new(self.node(engine, responder)).unwrap();
        let peer = PeerKey::from_offer(&alice, responder.offer(), &Trusting).unwrap();
        let (waiting, first) = Initiator::start(&alice, &peer, b"token i", NOW).unwrap();
        let checked = responder.check(&first, NOW).unwrap();
        let answered = responder.respond(&checked, b"token r", &Trusting, NOW);
        let (reply, bob) = answered.unwrap();
        let alice = waiting.finish(&reply, &Trusting, NOW).unwrap();
        let id = Self::canary(&self.0["id"], 0..16);
        let mut expected = [0; 16];
        id.write(&mut expected);
        assert_eq!(alice.id().as_bytes(), &expected, "it is another handshake");
        [Arc::new(alice), Arc::new(bob)]
    }
}

fn engines() -> [Arc<dyn Engine>; 2] {
    let mixed = Mixed {
        main: aws_lc(),
        rsa: rustcrypto(),
    };
    [Arc::new(mixed), rustcrypto()]
}

#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to count from"
)]
fn instant() -> Instant {
    Instant::now()
}

/// An exchange of one record each way.
fn exchange([alice, bob]: &[Arc<Session>; 2]) {
    let (mut asking, mut answered) = alice.begin(b"route", instant()).unwrap();
    let mut record = sealed(&mut asking);
    let (mut answering, _, _) = bob.accept(b"route", &mut record, instant()).unwrap();
    answered.open(&mut sealed(&mut answering)).unwrap();
}

fn sealed(sealer: &mut Sealer) -> BytesMut {
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(b"text");
    sealer.seal(Flags::END, &mut record).unwrap();
    record
}

/// Functions that were called before leave things behind on the stack, until others are.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what this is about")]
fn use_the_stack() {
    std::hint::black_box(&mut [0_u8; 256 * 1024]);
}

fn left(canaries: &[(&'static str, Canary)]) -> Vec<(&'static str, usize)> {
    let counts = canaries
        .iter()
        .map(|(name, canary)| (*name, canary.count()));
    counts.filter(|(_, count)| *count > 0).collect()
}

// threat 20
#[test]
fn the_secrets_of_a_session_are_gone_when_it_was_dropped() {
    let _alone = alone();
    let vectors = Vectors::read();
    let canaries = vectors.canaries();
    for engine in engines() {
        assert_eq!(left(&canaries), [], "before");
        let session = vectors.session(&engine);
        exchange(&session);
        let live = left(&canaries);
        assert!(live.iter().any(|(name, _)| *name == "chain_0"), "{live:?}");
        drop(session);
        if engine.name() == "rustcrypto" {
            // It leaves AES keys on the stack, as SECURITY.md says.
            use_the_stack();
        }
        assert_eq!(left(&canaries), [], "{}", engine.name());
    }
}

// threat 20, threat 31: who reads the memory of a process opens no epoch that is over.
#[test]
fn the_chain_of_an_epoch_is_gone_when_the_next_has_begun() {
    let _alone = alone();
    let vectors = Vectors::read();
    let mut canaries = vectors.canaries();
    for engine in engines() {
        let session = vectors.session(&engine);
        exchange(&session);
        session[0].advance().unwrap();
        exchange(&session);
        use_the_stack();
        assert_eq!((session[0].epoch(), session[1].epoch()), (1, 1));
        let live = left(&canaries);
        let is_there = |name: &str| live.iter().any(|(left, _)| *left == name);
        assert!(is_there("chain_1") && !is_there("chain_0"), "{live:?}");
        // What led to the session is gone as soon as there is one.
        for name in ["prk_i", "prk", "d_o", "d_e", "box_i", "box_r"] {
            assert!(!is_there(name), "{live:?}");
        }
    }
    canaries.clear();
}

// threat 20
#[test]
fn tokens_are_gone_when_the_handshake_is_over() {
    let _alone = alone();
    let [ours, theirs] = [
        "6c616e7465726e2d6f747465722d7175696e63652d746f6b656e2d6f66616c696365",
        "6d6561646f772d68657261642d66616c636f6e2d746f6b656e2d6f662d626f622d33",
    ]
    .map(Canary::from_hex);
    let token = |canary: &Canary| {
        let mut bytes = vec![0; canary.len()];
        canary.write(&mut bytes);
        Secret::new(bytes)
    };
    for engine in [aws_lc(), rustcrypto()] {
        let node = |name: &str| {
            let key = Arc::new(RsaKeyPair::generate(&*engine, RsaBits::B2048).unwrap());
            let identity = LocalIdentity::new(name.to_owned(), key, b"shown".to_vec());
            let random = Arc::new(SystemRandom::new());
            Arc::new(Local::new(Config::default(), Arc::clone(&engine), random, identity).unwrap())
        };
        let (alice, bob) = (node("alice"), node("bob"));
        let responder = Responder::new(bob).unwrap();
        let peer = PeerKey::from_offer(&alice, responder.offer(), &Trusting).unwrap();
        let (token_i, token_r) = (token(&ours), token(&theirs));
        // The one copy is the caller's.
        let check = |what: &str| {
            if engine.name() == "rustcrypto" {
                use_the_stack();
            }
            let counts = (ours.count(), theirs.count());
            assert_eq!(counts, (1, 1), "{} {what}", engine.name());
        };
        let (waiting, first) = Initiator::start(&alice, &peer, token_i.expose(), NOW).unwrap();
        check("starting");
        let checked = responder.check(&first, NOW).unwrap();
        let answered = responder.respond(&checked, token_r.expose(), &Trusting, NOW);
        let (reply, at_bob) = answered.unwrap();
        check("responding");
        let at_alice = Arc::new(waiting.finish(&reply, &Trusting, NOW).unwrap());
        check("finishing");
        let resuming =
            mesh_session::Resuming::start(&alice, &at_alice, token_i.expose(), NOW).unwrap();
        check("resuming");
        let at = (&at_bob, resuming.1.as_slice());
        let resumed = responder.resume(at, token_r.expose(), &Trusting, NOW);
        resuming
            .0
            .finish(&resumed.unwrap().0, &Trusting, NOW)
            .unwrap();
        check("resumed");
        drop((token_i, token_r));
        use_the_stack();
        assert_eq!((ours.count(), theirs.count()), (0, 0), "{}", engine.name());
    }
}
