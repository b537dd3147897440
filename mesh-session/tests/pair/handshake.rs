//! The handshake: what passes, and everything that must not.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use bytes::BytesMut;
use mesh_crypto::AeadAlgorithm;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::engine::aws_lc;
use mesh_session::Agreement;
use mesh_session::Config;
use mesh_session::EpochLimits;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::Local;
use mesh_session::MacCover;
use mesh_session::PeerKey;
use mesh_session::Responder;
use mesh_session::Role;
use mesh_session::Session;
use mesh_session::Suite;
use mesh_session::UnixTime;
use proptest::prelude::*;

const WEAK: Suite = Suite::new(
    Agreement::X25519,
    AeadAlgorithm::Aes128Gcm,
    MacCover::Record,
);

/// Where things are in messages of the preferred suite: X25519 share, ML-KEM ciphertext and key, OAEP ciphertext.
const SHARE_AT: usize = 4 + 32 + 8 + 32;
const KEM_AT: usize = SHARE_AT + 32;
const OAEP_AT: usize = KEM_AT + 1_088 + 1_184 + 2;

fn later(secs: u64) -> UnixTime {
    UnixTime::from_millis(NOW.as_millis() + secs * 1_000)
}

fn earlier(secs: u64) -> UnixTime {
    UnixTime::from_millis(NOW.as_millis() - secs * 1_000)
}

fn start(alice: &Local, responder: &Responder) -> (Initiator, Vec<u8>) {
    let peer = PeerKey::from_offer(alice, responder.offer(), &Pinned::bob()).unwrap();
    Initiator::start(alice, &peer, b"alice's token", NOW).unwrap()
}

fn respond(responder: &Responder, init: &[u8]) -> Result<(Vec<u8>, Session), Error> {
    let checked = responder.check(init, NOW)?;
    responder.respond(&checked, b"bob's token", &Pinned::alice(), NOW)
}

#[test]
fn both_ends_agree_on_everything() {
    let Handshake { alice, bob, .. } = handshake();
    assert_eq!(alice.id(), bob.id());
    assert_eq!(
        (alice.role(), bob.role()),
        (Role::Initiator, Role::Responder)
    );
    assert_eq!((alice.peer_name(), bob.peer_name()), (BOB, ALICE));
    assert_eq!(alice.peer_fingerprint(), BOB_KEY.public().fingerprint());
    assert_eq!(bob.peer_fingerprint(), ALICE_KEY.public().fingerprint());
    assert_eq!((alice.suite(), bob.created()), (Suite::PREFERRED, NOW));
    let (mut sealer, mut opener) = alice.begin(b"GET /", now()).unwrap();
    let mut record = seal(&mut sealer, Flags::END, b"question");
    let (mut answer, _, first) = bob.accept(b"GET /", &mut record, now()).unwrap();
    assert_eq!(
        (first.flags, record.as_ref()),
        (Flags::END, b"question".as_slice())
    );
    let mut record = seal(&mut answer, Flags::END, b"answer");
    assert_eq!(opener.open(&mut record).unwrap(), Flags::END);
    assert_eq!(record.as_ref(), b"answer");
}

#[test]
fn every_handshake_gives_other_keys() {
    assert_ne!(handshake().alice.id(), handshake().alice.id());
}

#[test]
fn messages_are_as_long_as_the_protocol_page_says() {
    let Handshake {
        offer, init, reply, ..
    } = handshake();
    let (name, key, attestation, rsa) = (ALICE.len(), ALICE_KEY.public().spki_der().len(), 5, 256);
    let bob = BOB.len();
    assert_eq!(
        offer.len(),
        3 + 4 + 32 + 1_184 + (2 + bob) + (2 + key) + (2 + attestation) + (2 + rsa)
    );
    let inner = (2 + name) + (2 + key) + (2 + attestation) + (2 + 13) + (2 + rsa);
    assert_eq!(init.len(), OAEP_AT + rsa + (2 + inner + 48));
    assert_eq!(
        reply.len(),
        4 + 32 + 32 + 1_088 + (2 + rsa) + (2 + (2 + 11) + (2 + rsa) + 48)
    );
}

#[test]
fn works_with_4096_bits_and_every_suite() {
    let key = Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B4096).unwrap());
    for suite in Suite::all() {
        let config = Config::default().with_suites(vec![suite]);
        let responder = Responder::new(local(BOB, &BOB_KEY, config.clone())).unwrap();
        let big = local(ALICE, &key, config.with_min_rsa_bits(RsaBits::B2048));
        let (initiator, init) = start(&big, &responder);
        let checked = responder.check(&init, NOW).unwrap();
        let pinned = Pinned {
            fingerprint: key.public().fingerprint(),
            ..Pinned::alice()
        };
        let (reply, bob) = responder
            .respond(&checked, b"bob's token", &pinned, NOW)
            .unwrap();
        let alice = Arc::new(initiator.finish(&reply, &Pinned::bob(), NOW).unwrap());
        assert_eq!(alice.suite(), suite);
        let mut record = seal(&mut alice.begin(b"", now()).unwrap().0, Flags::END, b"text");
        Arc::new(bob).accept(b"", &mut record, now()).unwrap();
        assert_eq!(record.as_ref(), b"text");
    }
}

#[test]
fn nothing_that_identifies_the_initiator_travels_in_clear() {
    let Handshake { init, reply, .. } = handshake();
    let holds =
        |message: &[u8], what: &[u8]| message.windows(what.len()).any(|window| window == what);
    for secret in [
        ALICE.as_bytes(),
        b"alice's token",
        &ALICE_KEY.public().spki_der()[60..90],
    ] {
        assert!(!holds(&init, secret));
    }
    assert!(!holds(&reply, b"bob's token"));
}

// threat 24
#[test]
fn a_repeated_first_message_is_refused() {
    let Handshake {
        responder, init, ..
    } = handshake();
    assert!(matches!(responder.check(&init, NOW), Err(Error::Replayed)));
}

// threat 24
#[test]
fn of_two_copies_checked_at_once_one_is_answered() {
    let responder = Responder::new(bob()).unwrap();
    let (_, init) = start(&alice(), &responder);
    let [first, second] = [
        responder.check(&init, NOW).unwrap(),
        responder.check(&init, NOW).unwrap(),
    ];
    responder
        .respond(&first, b"bob's token", &Pinned::alice(), NOW)
        .unwrap();
    let again = responder.respond(&second, b"bob's token", &Pinned::alice(), NOW);
    assert!(matches!(again, Err(Error::Replayed)));
}

// threat 24
#[test]
fn an_old_or_future_first_message_is_refused() {
    let responder = Responder::new(bob()).unwrap();
    let (_, init) = start(&alice(), &responder);
    assert!(matches!(
        responder.check(&init, later(61)),
        Err(Error::Clock {
            off_by_millis: 61_000
        })
    ));
    assert!(matches!(
        responder.check(&init, earlier(61)),
        Err(Error::Clock { .. })
    ));
    let checked = responder.check(&init, later(60)).unwrap();
    let waited = responder.respond(&checked, b"", &Pinned::alice(), later(62));
    assert!(matches!(waited, Err(Error::Clock { .. })));
}

// threat 27: after a restart with the same key on disk nothing recorded before opens.
#[test]
fn a_restarted_responder_refuses_what_the_old_one_was_sent() {
    let (old, new) = (
        Responder::new(bob()).unwrap(),
        Responder::new(bob()).unwrap(),
    );
    let (_, init) = start(&alice(), &old);
    assert!(matches!(new.check(&init, NOW), Err(Error::StaleOffer)));
}

#[test]
fn a_full_replay_cache_refuses_rather_than_forgets() {
    let config = Config::default().with_replay_capacity(2);
    let responder = Responder::new(local(BOB, &BOB_KEY, config)).unwrap();
    let alice = alice();
    for _ in 0..2 {
        respond(&responder, &start(&alice, &responder).1).unwrap();
    }
    assert!(matches!(
        respond(&responder, &start(&alice, &responder).1),
        Err(Error::Busy)
    ));
}

// threat 26
#[test]
fn own_messages_sent_back_are_refused() {
    let responder = Responder::new(bob()).unwrap();
    let (initiator, init) = start(&alice(), &responder);
    assert!(matches!(
        initiator.finish(&init, &Pinned::bob(), NOW),
        Err(Error::Malformed { .. })
    ));
    let Handshake {
        responder, reply, ..
    } = handshake();
    assert!(matches!(
        responder.check(&reply, NOW),
        Err(Error::Malformed { .. })
    ));
    let mirror = Responder::new(alice()).unwrap();
    assert!(matches!(mirror.check(&init, NOW), Err(Error::StaleOffer)));
}

// threat 26
#[test]
fn a_reply_to_another_first_message_is_refused() {
    let responder = Responder::new(bob()).unwrap();
    let (first, first_init) = start(&alice(), &responder);
    let (second, second_init) = start(&alice(), &responder);
    let (first_reply, _) = respond(&responder, &first_init).unwrap();
    let (second_reply, _) = respond(&responder, &second_init).unwrap();
    assert!(matches!(
        first.finish(&second_reply, &Pinned::bob(), NOW),
        Err(Error::Open)
    ));
    assert!(matches!(
        second.finish(&first_reply, &Pinned::bob(), NOW),
        Err(Error::Open)
    ));
}

#[test]
fn a_key_that_is_not_the_peers_is_refused_on_either_side() {
    let eve = Responder::new(local(BOB, &EVE_KEY, Config::default())).unwrap();
    let offer = PeerKey::from_offer(&alice(), eve.offer(), &Pinned::bob());
    assert!(matches!(offer, Err(Error::Refused(_))));
    let responder = Responder::new(bob()).unwrap();
    let (_, init) = start(&local(ALICE, &EVE_KEY, Config::default()), &responder);
    assert!(matches!(respond(&responder, &init), Err(Error::Refused(_))));
    let (_, init) = start(&local(BOB, &ALICE_KEY, Config::default()), &responder);
    assert!(matches!(respond(&responder, &init), Err(Error::Refused(_))));
}

#[test]
fn a_token_that_is_not_the_peers_is_refused_on_either_side() {
    let responder = Responder::new(bob()).unwrap();
    let peer = PeerKey::from_offer(&alice(), responder.offer(), &Pinned::bob()).unwrap();
    let (_, init) = Initiator::start(&alice(), &peer, b"stolen", NOW).unwrap();
    assert!(matches!(respond(&responder, &init), Err(Error::Refused(_))));
    let (initiator, init) = start(&alice(), &responder);
    let checked = responder.check(&init, NOW).unwrap();
    let (reply, _) = responder
        .respond(&checked, b"stolen", &Pinned::alice(), NOW)
        .unwrap();
    assert!(matches!(
        initiator.finish(&reply, &Pinned::bob(), NOW),
        Err(Error::Refused(_))
    ));
}

// threat 29
#[test]
fn a_weaker_peer_is_refused_not_accommodated() {
    let weak = Config::default().with_suites(vec![WEAK]);
    let responder = Responder::new(local(BOB, &BOB_KEY, weak.clone())).unwrap();
    let offer = PeerKey::from_offer(&alice(), responder.offer(), &Pinned::bob());
    assert!(matches!(offer, Err(Error::Suite)));

    let both = Config::default().with_suites(vec![WEAK, Suite::CLASSIC, Suite::PREFERRED]);
    let responder = Responder::new(local(BOB, &BOB_KEY, both)).unwrap();
    let (_, init) = start(&alice(), &responder);
    assert_eq!(
        &init[2..4],
        [1, 1],
        "the initiator's order decides, among what both accept"
    );
    // The same with the other suite written over it.
    let mut lowered = init.clone();
    lowered[2] = 0;
    assert!(
        matches!(respond(&responder, &lowered), Err(Error::Malformed { .. })),
        "what is left of ML-KEM does not fit"
    );
    let classic = local(
        ALICE,
        &ALICE_KEY,
        Config::default().with_suites(vec![Suite::CLASSIC]),
    );
    let (_, mut lowered) = start(&classic, &responder);
    lowered[3] = 3;
    assert!(matches!(respond(&responder, &lowered), Err(Error::Open)));
    let strict = Responder::new(bob()).unwrap();
    assert!(matches!(strict.check(&lowered, NOW), Err(Error::Suite)));

    let large = Config::default().with_min_rsa_bits(RsaBits::B4096);
    let key = Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B4096).unwrap());
    let strict = local(BOB, &key, large);
    let responder = Responder::new(Arc::clone(&strict)).unwrap();
    let pinned = Pinned {
        fingerprint: key.public().fingerprint(),
        ..Pinned::bob()
    };
    let peer = PeerKey::from_offer(&alice(), responder.offer(), &pinned).unwrap();
    let (_, init) = Initiator::start(&alice(), &peer, b"alice's token", NOW).unwrap();
    assert!(matches!(
        respond(&responder, &init),
        Err(Error::KeyTooSmall {
            bits: 2048,
            minimum: 4096
        })
    ));
    let offer = Responder::new(bob()).unwrap().offer().to_vec();
    assert!(matches!(
        PeerKey::from_offer(&strict, &offer, &Pinned::bob()),
        Err(Error::KeyTooSmall { .. })
    ));
}

// threat 28: the ciphertext is somebody else's, or none at all; the answer is the same, and so is the work before it.
#[test]
fn a_secret_that_does_not_decrypt_fails_like_a_wrong_mac() {
    let responder = Responder::new(bob()).unwrap();
    let (_, init) = start(&alice(), &responder);
    let at = OAEP_AT;
    let error = |bytes: &[u8]| {
        let mut init = init.clone();
        init[at..at + 256].copy_from_slice(bytes);
        format!("{:?}", respond(&responder, &init).unwrap_err())
    };
    let label = b"mesh-session v1 secret to responder";
    let random = mesh_crypto::SystemRandom::new();
    let valid = BOB_KEY
        .public()
        .encrypt_oaep(&[1; 32], label, &random)
        .unwrap();
    let wrong_length = BOB_KEY
        .public()
        .encrypt_oaep(&[1; 31], label, &random)
        .unwrap();
    let wrong_label = BOB_KEY
        .public()
        .encrypt_oaep(&[1; 32], b"", &random)
        .unwrap();
    for bytes in [
        valid.as_slice(),
        &wrong_length,
        &wrong_label,
        &[0xff; 256],
        &[0; 256],
    ] {
        assert_eq!(error(bytes), "Open");
    }
    let mut damaged = init.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(
        format!("{:?}", respond(&responder, &damaged).unwrap_err()),
        "Open"
    );
}

// threat 31: the RSA keys are known to the attacker; what is missing is a share that nobody kept.
#[test]
fn the_shares_of_a_handshake_are_fresh() {
    let (one, two) = (handshake(), handshake());
    let share = |init: &[u8]| init[SHARE_AT..][..32].to_vec();
    assert_ne!(share(&one.init), share(&two.init));
    assert_ne!(one.reply[36..68], two.reply[36..68]);
    assert_ne!(one.offer[7..39], two.offer[7..39]);
    assert_ne!(one.offer[39..39 + 1_184], two.offer[39..39 + 1_184]);
    assert_ne!(one.init[KEM_AT..][..1_088], two.init[KEM_AT..][..1_088]);
}

#[test]
fn a_share_of_low_order_is_refused() {
    let responder = Responder::new(bob()).unwrap();
    let (_, mut init) = start(&alice(), &responder);
    init[SHARE_AT..][..32].fill(0);
    assert!(matches!(respond(&responder, &init), Err(Error::Open)));
}

#[test]
fn an_ml_kem_ciphertext_or_key_that_is_not_the_peers_is_refused() {
    let responder = Responder::new(bob()).unwrap();
    let (_, init) = start(&alice(), &responder);
    for at in [KEM_AT, KEM_AT + 1_088] {
        let mut changed = init.clone();
        changed[at] ^= 1;
        assert!(matches!(respond(&responder, &changed), Err(Error::Open)));
    }
    // A coefficient that is not below the modulus (FIPS 203 section 7.2).
    let mut offer = responder.offer().to_vec();
    offer[39..42].fill(0xff);
    PeerKey::from_offer(&alice(), &offer, &Pinned::bob()).unwrap_err();
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused = |config: Config| {
        let identity = alice().identity().clone();
        let random = Arc::new(mesh_crypto::SystemRandom::new());
        let made = Local::new(config, aws_lc(), random, identity);
        assert!(matches!(
            made,
            Err(Error::Config { .. } | Error::KeyTooSmall { .. })
        ));
    };
    refused(Config::default().with_suites(vec![]));
    refused(Config::default().with_suites(vec![Suite::CLASSIC; 2]));
    refused(Config::default().with_clock_tolerance(Duration::ZERO));
    refused(Config::default().with_replay_capacity(1));
    refused(Config::default().with_window(1_023));
    refused(Config::default().with_epoch(EpochLimits::default().with_blocks(0)));
    refused(Config::default().with_epoch(EpochLimits::default().with_records(0)));
    refused(Config::default().with_epoch(EpochLimits::default().with_age(Duration::ZERO)));
    refused(Config::default().with_min_rsa_bits(RsaBits::B4096));
}

#[test]
fn a_token_that_is_too_long_is_refused_before_any_work() {
    let responder = Responder::new(bob()).unwrap();
    let peer = PeerKey::from_offer(&alice(), responder.offer(), &Pinned::bob()).unwrap();
    let start = Initiator::start(&alice(), &peer, &[0; 8_193], NOW);
    assert!(matches!(
        start,
        Err(Error::TooLong {
            got: 8_193,
            limit: 8_192,
            ..
        })
    ));
}

/// Any change of any byte, by position; `None` if the bytes stay as they are.
fn mutate(bytes: &[u8], at: usize, with: u8, kind: u8) -> Option<Vec<u8>> {
    let mut out = bytes.to_vec();
    let at = at % out.len();
    match kind {
        0 => out[at] ^= with,
        1 => out.truncate(at),
        2 => out.insert(at, with),
        3 => drop(out.remove(at)),
        4 => out.extend_from_slice(&[with, with]),
        _ => out[at..].fill(with),
    }
    (out != bytes).then_some(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // threat 26
    #[test]
    fn no_changed_offer_is_accepted(at in 0_usize..2_000, with in 1_u8.., kind in 0_u8..6) {
        let responder = &SHARED.0.responder;
        if let Some(offer) = mutate(responder.offer(), at, with, kind) {
            prop_assert!(PeerKey::from_offer(&SHARED.1, &offer, &Pinned::bob()).is_err());
        }
    }

    // threat 26
    #[test]
    fn no_changed_first_message_is_answered(at in 0_usize..4_000, with in 1_u8.., kind in 0_u8..6) {
        let (handshake, _, init) = &*SHARED;
        if let Some(init) = mutate(init, at, with, kind) {
            prop_assert!(respond(&handshake.responder, &init).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 1_u8..4) {
        let (handshake, alice, _) = &*SHARED;
        let framed = [&[1, kind, 0, 1], bytes.as_slice()].concat();
        for bytes in [&bytes, &framed] {
            prop_assert!(handshake.responder.check(bytes, NOW).is_err());
            prop_assert!(PeerKey::from_offer(alice, bytes, &Pinned::bob()).is_err());
            prop_assert!(handshake.bob.accept(b"", &mut BytesMut::from(bytes.as_slice()), now()).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // threat 26
    #[test]
    fn no_changed_reply_makes_a_session(at in 0_usize..2_000, with in 1_u8.., kind in 0_u8..6) {
        let responder = &SHARED.0.responder;
        let (initiator, init) = start(&SHARED.1, responder);
        // A responder of its own cache for each would cost a signature more.
        let reply = respond(responder, &init).unwrap().0;
        if let Some(reply) = mutate(&reply, at, with, kind) {
            prop_assert!(initiator.finish(&reply, &Pinned::bob(), NOW).is_err());
        }
    }
}

/// One handshake, and a first message that was not answered yet.
static SHARED: std::sync::LazyLock<(Handshake, Arc<Local>, Vec<u8>)> =
    std::sync::LazyLock::new(|| {
        let handshake = handshake();
        let alice = alice();
        let (_, init) = start(&alice, &handshake.responder);
        (handshake, alice, init)
    });
