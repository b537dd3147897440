//! The session table: bounds on number, idleness and age.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use mesh_session::Config;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::PeerKey;
use mesh_session::Responder;
use mesh_session::Resuming;
use mesh_session::Session;
use mesh_session::SessionTable;
use mesh_session::TableConfig;

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn finds_what_was_added_until_it_is_removed() {
    let now = now();
    let table = SessionTable::new(TableConfig::default(), now).unwrap();
    let session = handshake().bob;
    assert!(table.get(&session.id(), now).is_none());
    assert!(table.insert(Arc::clone(&session), now).is_none());
    assert_eq!(table.get(&session.id(), now).unwrap().id(), session.id());
    assert_eq!(table.sessions().len(), 1);
    assert_eq!(table.remove(&session.id()).unwrap().id, session.id());
    assert!(table.get(&session.id(), now).is_none());
}

#[test]
fn an_idle_session_expires_and_a_busy_one_lives_an_hour() {
    let now = now();
    let table = SessionTable::new(TableConfig::default(), now).unwrap();
    let (idle, busy) = (handshake().bob, handshake().bob);
    table.insert(Arc::clone(&idle), now);
    table.insert(Arc::clone(&busy), now);
    for minute in 1..60 {
        assert!(table.get(&busy.id(), now + MINUTE * minute).is_some());
    }
    assert!(table.get(&idle.id(), now + MINUTE * 15).is_none());
    assert!(table.get(&busy.id(), now + MINUTE * 60).is_none());
    assert_eq!(table.sweep(now + MINUTE * 60), 2);
    let stats = table.stats();
    assert_eq!(
        (stats.sessions, stats.inserted, stats.expired, stats.evicted),
        (0, 2, 2, 0)
    );
}

#[test]
fn at_the_bound_expired_sessions_go_first_then_the_longest_unused() {
    let now = now();
    let config = TableConfig::default()
        .with_capacity(16)
        .with_idle_timeout(MINUTE);
    let table = SessionTable::new(config, now).unwrap();
    // Sixteen parts of one session each: two sessions of one part meet.
    let first = handshake().bob;
    let meets =
        |id: &mesh_session::SessionId| id.as_bytes()[0] % 16 == first.id().as_bytes()[0] % 16;
    let mut others =
        std::iter::repeat_with(|| handshake().bob).filter(|session| meets(&session.id()));
    let (second, third) = (others.next().unwrap(), others.next().unwrap());
    table.insert(Arc::clone(&first), now);
    let evicted = table.insert(Arc::clone(&second), now + MINUTE / 2);
    assert_eq!(evicted.unwrap().id, first.id());
    assert!(table.insert(third, now + MINUTE * 2).is_none());
    assert!(table.get(&second.id(), now + MINUTE * 2).is_none());
    let stats = table.stats();
    assert_eq!((stats.sessions, stats.expired, stats.evicted), (1, 1, 1));
}

#[test]
fn bounds_out_of_range_are_refused() {
    for config in [
        TableConfig::default().with_capacity(15),
        TableConfig::default().with_idle_timeout(Duration::ZERO),
        TableConfig::default().with_max_age(Duration::ZERO),
    ] {
        assert!(matches!(
            SessionTable::new(config, now()),
            Err(Error::Config { .. })
        ));
    }
}

/// Other sessions of the same two peers, without an RSA operation for each.
fn many(first: &Handshake, count: usize) -> Vec<Arc<Session>> {
    let alice = alice();
    let resume = |_| {
        let (_, message) = Resuming::start(&alice, &first.alice, b"alice's token", NOW).unwrap();
        let resumed = (&*first.bob, message.as_slice());
        let resumed = first
            .responder
            .resume(resumed, b"bob's token", &Pinned::alice(), NOW);
        Arc::new(resumed.unwrap().1)
    };
    (0..count).map(resume).collect()
}

#[test]
fn an_idle_session_is_kept_small_and_works_again() {
    let start = now();
    let table = SessionTable::new(TableConfig::default(), start).unwrap();
    let Handshake { alice, bob, .. } = handshake();
    let id = bob.id();
    alice.advance().unwrap();
    let call = |bob: &Arc<Session>| {
        let mut record = seal(&mut alice.begin(b"r", start).unwrap().0, Flags::END, b"x");
        let replay = record.clone();
        bob.accept(b"r", &mut record, start).unwrap();
        replay
    };
    let replay = call(&bob);
    table.insert(bob, start);
    let is_frozen = || table.sessions()[0].is_frozen;
    let idle = start + Duration::from_mins(1);
    let held = table.get(&id, start).unwrap();
    table.sweep(idle);
    assert!(!is_frozen(), "somebody still holds it");
    drop(held);
    table.sweep(start + Duration::from_secs(5));
    assert!(!is_frozen(), "it was used a moment ago");
    table.sweep(idle);
    assert!(
        !is_frozen(),
        "the overlap with the epoch before is not over"
    );
    let idle = idle + Duration::from_secs(30);
    table.sweep(idle);
    assert!(is_frozen());
    assert_eq!(table.sessions()[0].counters.exchanges, 1);
    let again = table.get(&id, idle).unwrap();
    assert!(!is_frozen());
    assert_eq!(
        (again.id(), again.epoch(), again.peer_name()),
        (id, 1, ALICE)
    );
    // What it accepted before, it still knows.
    assert!(matches!(
        again.accept(b"r", &mut replay.clone(), idle),
        Err(Error::Open)
    ));
    call(&again);
    assert_eq!(again.counters().exchanges, 2);
}

#[test]
fn a_hundred_thousand_idle_sessions_take_a_kilobyte_each() {
    const SESSIONS: usize = 4_000;
    let start = now();
    let table = SessionTable::new(TableConfig::default(), start).unwrap();
    let first = handshake();
    let idle = start + Duration::from_mins(1);
    let fill = |count| {
        // A few at a time, so that what was expanded is used again.
        for _ in 0..count / 100 {
            for session in many(&first, 100) {
                table.insert(session, start);
            }
            table.sweep(idle);
        }
    };
    // What the first ones take beside themselves is not counted.
    fill(SESSIONS);
    let before = resident_bytes();
    fill(2 * SESSIONS);
    let each = resident_bytes().saturating_sub(before) / (2 * SESSIONS);
    assert!(table.sessions().iter().all(|session| session.is_frozen));
    assert!(each <= 1_024, "{each} bytes a session");
}

#[test]
fn a_peer_with_many_sessions_loses_its_own_and_not_those_of_others() {
    let start = now();
    let config = TableConfig::default().with_capacity(16 * 8);
    let table = SessionTable::new(config, start).unwrap();
    let greedy = handshake();
    // The other peer's session is the one used longest ago of all.
    let other = other_peer();
    let id = other.id();
    table.insert(other, start);
    for session in many(&greedy, 600) {
        table.insert(session, start + Duration::from_secs(1));
    }
    assert!(table.stats().evicted > 400);
    assert!(table.get(&id, start + Duration::from_secs(2)).is_some());
}

#[test]
fn sessions_of_a_peer_that_is_trusted_no_more_are_taken_out() {
    let start = now();
    let table = SessionTable::new(TableConfig::default(), start).unwrap();
    let first = handshake();
    for session in many(&first, 5) {
        table.insert(session, start);
    }
    let (other, id) = (other_peer(), first.bob.id());
    let kept = other.id();
    table.insert(other, start);
    table.insert(first.bob, start);
    table.sweep(start + Duration::from_mins(1));
    let fingerprint = ALICE_KEY.public().fingerprint();
    assert_eq!(table.remove_peers(|_, key| key == fingerprint), 6);
    assert!(table.get(&id, start).is_none());
    assert!(table.get(&kept, start).is_some());
}

/// A session that somebody else than Alice has with Bob.
fn other_peer() -> Arc<Session> {
    let eve = local("spiffe://example.org/eve", &EVE_KEY, Config::default());
    let responder = Responder::new(bob()).unwrap();
    let peer = PeerKey::from_offer(&eve, responder.offer(), &Pinned::bob()).unwrap();
    let (_, init) = Initiator::start(&eve, &peer, b"alice's token", NOW).unwrap();
    let checked = responder.check(&init, NOW).unwrap();
    let pinned = Pinned {
        name: "spiffe://example.org/eve",
        fingerprint: EVE_KEY.public().fingerprint(),
        ..Pinned::alice()
    };
    let answered = responder.respond(&checked, b"", &pinned, NOW);
    Arc::new(answered.unwrap().1)
}
