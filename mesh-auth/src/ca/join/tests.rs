//! A token lets one key in, for a while.

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn grant() -> Grant {
    let id = SpiffeId::parse("spiffe://example.org/alice").unwrap();
    Grant::new(id, DEFAULT_TTL, now()).unwrap()
}

#[test]
fn tokens_are_random_and_only_their_hash_is_kept() {
    let [one, other] = [(); 2].map(|()| JoinToken::generate().unwrap());
    assert_ne!(one.expose(), other.expose());
    assert_ne!(one.digest(), other.digest());
    let read = JoinToken::parse(&format!(" {}\n", one.expose())).unwrap();
    assert_eq!(read.digest(), one.digest());
    let secret = one.expose().strip_prefix("mesh-join-").unwrap();
    assert_eq!(secret.len(), 64);
    for shown in [one.digest(), format!("{one:?}"), grant().to_string()] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let long = format!("{}0", one.expose());
    let upper = one.expose().to_uppercase();
    for text in ["", "mesh-join-", "mesh-join-zz", secret, &long, &upper] {
        assert_eq!(JoinToken::parse(text).unwrap_err(), JoinError::Token);
    }
}

#[test]
fn the_first_key_uses_a_token_up() {
    let used = grant().used("key-1", now()).unwrap();
    assert_eq!(used.used_by.as_deref(), Some("key-1"));
    assert_eq!(used.clone().used("key-2", now()), Err(JoinError::Used));
    assert_eq!(used.clone().used("key-1", now()), Ok(used));
}

#[test]
fn a_token_ends() {
    let last = now() + DEFAULT_TTL - Duration::from_secs(1);
    grant().used("key", last).unwrap();
    assert_eq!(
        grant().used("key", now() + DEFAULT_TTL),
        Err(JoinError::Expired)
    );
    let used = grant().used("key", now()).unwrap();
    assert_eq!(
        used.used("key", now() + DEFAULT_TTL),
        Err(JoinError::Expired)
    );
}

#[test]
fn some_names_are_not_for_joining() {
    for id in ["spiffe://example.org", "spiffe://example.org/mesh-ca"] {
        let refused = Grant::new(SpiffeId::parse(id).unwrap(), DEFAULT_TTL, now());
        assert!(matches!(refused, Err(JoinError::Id { .. })), "{id}");
    }
}

#[test]
fn grants_survive_being_written() {
    for grant in [grant(), grant().used("ab12", now()).unwrap()] {
        assert_eq!(Grant::parse(&grant.to_string()), Ok(grant));
    }
    let whole = grant().to_string();
    for text in [
        "",
        "grant-2 spiffe://example.org/a 1 -",
        "grant-1 spiffe://example.org/a 1",
        "grant-1 spiffe://example.org/a x -",
        &format!("{whole} more"),
    ] {
        assert_eq!(Grant::parse(text), Err(JoinError::Grant), "{text}");
    }
    assert!(matches!(
        Grant::parse("grant-1 http://example.org 1 -"),
        Err(JoinError::GrantId(_))
    ));
}
