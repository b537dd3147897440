//! Resumption: a new session without a private key, of the same peer, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use mesh_session::Config;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Local;
use mesh_session::Responder;
use mesh_session::Responders;
use mesh_session::Resuming;
use mesh_session::Session;
use mesh_session::Suite;
use mesh_session::UnixTime;
use mesh_session::resumed_session_of;
use proptest::prelude::*;

use crate::support::*;

fn later(secs: u64) -> UnixTime {
    UnixTime::from_millis(NOW.as_millis() + secs * 1_000)
}

/// The calling node, where its session has its name.
fn caller() -> Arc<Local> {
    alice()
}

fn resume(
    responder: &Responder,
    bob: &Session,
    message: &[u8],
    at: UnixTime,
) -> Result<(Vec<u8>, Session), Error> {
    responder.resume((bob, message), b"bob's token", &Pinned::alice(), at)
}

fn start(alice: &Arc<Session>) -> (Resuming, Vec<u8>) {
    Resuming::start(&caller(), alice, b"alice's token", NOW).unwrap()
}

#[test]
fn a_resumed_session_works_and_is_another_one() {
    for suite in Suite::all() {
        let config = Config::default().with_suites(vec![suite]);
        let (alice, bob) = (
            local(ALICE, &ALICE_KEY, config.clone()),
            local(BOB, &BOB_KEY, config),
        );
        let first = handshake_of(&alice, bob);
        let (resuming, message) =
            Resuming::start(&alice, &first.alice, b"alice's token", later(5)).unwrap();
        assert_eq!(resumed_session_of(&message), Some(first.bob.id()));
        let (reply, bob) = resume(&first.responder, &first.bob, &message, later(5)).unwrap();
        let alice = resuming.finish(&reply, &Pinned::bob(), later(6)).unwrap();
        assert_eq!(alice.id(), bob.id());
        assert_ne!(alice.id(), first.alice.id());
        assert_eq!((alice.suite(), bob.suite()), (suite, suite));
        assert_eq!((alice.peer_name(), bob.peer_name()), (BOB, ALICE));
        assert_eq!(bob.peer_fingerprint(), first.bob.peer_fingerprint());
        assert_eq!((alice.authenticated(), alice.created()), (NOW, later(6)));
        let (alice, bob) = (Arc::new(alice), Arc::new(bob));
        let mut record = seal(&mut alice.begin(b"r", now()).unwrap().0, Flags::END, b"x");
        assert!(matches!(
            first.bob.accept(b"r", &mut record.clone(), now()),
            Err(Error::Open)
        ));
        bob.accept(b"r", &mut record, now()).unwrap();
        // And again from there.
        let (resuming, message) =
            Resuming::start(&caller(), &alice, b"alice's token", later(7)).unwrap();
        let (reply, _) = resume(&first.responder, &bob, &message, later(7)).unwrap();
        let third = resuming.finish(&reply, &Pinned::bob(), later(7)).unwrap();
        assert_eq!(third.authenticated(), NOW);
    }
}

// threat 24
#[test]
fn a_repeated_resumption_is_refused_also_after_the_identity_changed() {
    let first = handshake();
    let (_, message) = start(&first.alice);
    resume(&first.responder, &first.bob, &message, NOW).unwrap();
    let again = resume(&first.responder, &first.bob, &message, NOW);
    assert!(matches!(again, Err(Error::Replayed)));
    let renewed = first.responder.renewed(bob()).unwrap();
    let again = resume(&renewed, &first.bob, &message, NOW);
    assert!(matches!(again, Err(Error::Replayed)));
    let late = resume(&renewed, &first.bob, &message, later(61));
    assert!(matches!(late, Err(Error::Clock { .. })));
}

#[test]
fn trust_does_not_grow_older_than_its_limit() {
    let first = handshake();
    let alice = caller();
    let at = later(3_600);
    let (_, message) = Resuming::start(&alice, &first.alice, b"alice's token", at).unwrap();
    assert!(matches!(
        resume(&first.responder, &first.bob, &message, at),
        Err(Error::TooOld)
    ));
}

#[test]
fn policy_that_changed_since_is_kept() {
    let first = handshake();
    let (_, message) = start(&first.alice);
    let classic = Config::default().with_suites(vec![Suite::CLASSIC]);
    let strict = first
        .responder
        .renewed(local(BOB, &BOB_KEY, classic))
        .unwrap();
    assert!(matches!(
        resume(&strict, &first.bob, &message, NOW),
        Err(Error::Suite)
    ));
    let never = Config::default().with_resumption_age(Duration::ZERO);
    let never = first
        .responder
        .renewed(local(BOB, &BOB_KEY, never))
        .unwrap();
    assert!(matches!(
        resume(&never, &first.bob, &message, NOW),
        Err(Error::TooOld)
    ));
}

#[test]
fn a_bad_token_is_refused_on_either_side() {
    let first = handshake();
    let alice = caller();
    let (_, message) = Resuming::start(&alice, &first.alice, b"stolen", NOW).unwrap();
    assert!(matches!(
        resume(&first.responder, &first.bob, &message, NOW),
        Err(Error::Refused(_))
    ));
    let (resuming, message) = start(&first.alice);
    let (reply, _) = first
        .responder
        .resume((&first.bob, &message), b"stolen", &Pinned::alice(), NOW)
        .unwrap();
    assert!(matches!(
        resuming.finish(&reply, &Pinned::bob(), NOW),
        Err(Error::Refused(_))
    ));
}

// threat 26
#[test]
fn a_resumption_belongs_to_one_session_and_one_side() {
    let (first, other) = (handshake(), handshake());
    let (resuming, message) = start(&first.alice);
    assert!(matches!(
        resume(&first.responder, &other.bob, &message, NOW),
        Err(Error::Open)
    ));
    let mut renamed = message.clone();
    renamed[2..18].copy_from_slice(other.bob.id().as_bytes());
    assert!(matches!(
        resume(&first.responder, &other.bob, &renamed, NOW),
        Err(Error::Open)
    ));
    assert!(matches!(
        resume(&first.responder, &first.alice, &message, NOW),
        Err(Error::Role)
    ));
    let own = Resuming::start(&bob(), &first.bob, b"", NOW);
    assert!(matches!(own, Err(Error::Role)));
    let (_, other_message) = start(&first.alice);
    let (other_reply, _) = resume(&first.responder, &first.bob, &other_message, NOW).unwrap();
    assert!(matches!(
        resuming.finish(&other_reply, &Pinned::bob(), NOW),
        Err(Error::Open)
    ));
}

#[test]
fn an_old_offer_is_answered_until_its_overlap_ends() {
    let responders = Responders::new(bob(), Duration::from_mins(1)).unwrap();
    let alice = caller();
    let peer =
        mesh_session::PeerKey::from_offer(&alice, responders.current().offer(), &Pinned::bob())
            .unwrap();
    let start = || {
        mesh_session::Initiator::start(&alice, &peer, b"alice's token", NOW)
            .unwrap()
            .1
    };
    let (one, two) = (start(), start());
    responders
        .renew(local(BOB, &EVE_KEY, Config::default()), now())
        .unwrap();
    let almost = now() + Duration::from_secs(59);
    let (responder, checked) = responders.check(&one, (NOW, almost)).unwrap();
    responder
        .respond(&checked, b"bob's token", &Pinned::alice(), NOW)
        .unwrap();
    let over = now() + Duration::from_mins(1);
    assert!(matches!(
        responders.check(&two, (NOW, over)),
        Err(Error::StaleOffer)
    ));
    assert!(matches!(
        responders.check(&one, (NOW, almost)),
        Err(Error::Replayed)
    ));
    responders.sweep(over);
    assert!(matches!(
        responders.check(&two, (NOW, almost)),
        Err(Error::StaleOffer)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    // threat 26
    #[test]
    fn no_changed_resumption_or_reply_is_accepted(at in any::<prop::sample::Index>(), with in 1_u8..) {
        let (first, other_reply) = &*SHARED;
        let (resuming, message) = start(&first.alice);
        let mut changed = message.clone();
        let place = at.index(changed.len());
        changed[place] ^= with;
        prop_assert!(resume(&first.responder, &first.bob, &changed, NOW).is_err());
        prop_assert!(resume(&first.responder, &first.bob, &message[..place], NOW).is_err());
        let mut reply = other_reply.clone();
        let place = at.index(reply.len());
        reply[place] ^= with;
        prop_assert!(resuming.finish(&reply, &Pinned::bob(), NOW).is_err());
    }
}

static SHARED: std::sync::LazyLock<(Handshake, Vec<u8>)> = std::sync::LazyLock::new(|| {
    let first = handshake();
    let (_, message) = start(&first.alice);
    let (reply, _) = resume(&first.responder, &first.bob, &message, NOW).unwrap();
    (first, reply)
});
