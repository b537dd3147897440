//! The session table: bounds on number, idleness and age.

use std::sync::Arc;
use std::time::Duration;

use crate::support::handshake;
use crate::support::now;
use mesh_session::Error;
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
