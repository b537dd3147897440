//! Keys whose dates are wrong.

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::TrustDomain;
use mesh_crypto::keystore::OsFileSystem;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn at(seconds: u64) -> SystemTime {
    NOW + Duration::from_secs(seconds)
}

fn credentials() -> Credentials {
    let domain = TrustDomain::parse("example.org").unwrap();
    let authority = Authority::generate(&domain, Duration::from_hours(10), at(1_000)).unwrap();
    let id = "spiffe://example.org/a".parse().unwrap();
    let issued = authority.issue(&id, Duration::from_hours(1), at(1_000), &[]);
    let issued = issued.unwrap();
    Credentials::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

/// Replaces keys after a week; the first is dated `dated`.
fn identity(dir: &tempfile::TempDir, dated: u64) -> SessionIdentity {
    let engine = mesh_crypto::engine::aws_lc();
    let store = KeyStore::open(Arc::new(OsFileSystem::new()), &dir.path().join("keys")).unwrap();
    store.generate(&*engine, RsaBits::B2048, dated).unwrap();
    let life = KeyLife {
        store,
        bits: RsaBits::B2048,
        interval: Some(Duration::from_secs(7 * DAY)),
        overlap: Duration::from_hours(1),
    };
    let config = mesh_session::Config::default().with_min_rsa_bits(RsaBits::B2048);
    let name = "spiffe://example.org/a".to_owned();
    SessionIdentity::new(&credentials(), name, life, (config, engine), at(dated)).unwrap()
}

const DAY: u64 = 86_400;

#[test]
fn a_key_from_the_future_is_replaced_once_and_then_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let now = 1_000 * DAY;
    let identity = identity(&dir, now + 400 * DAY);
    let refresh = |now: u64| identity.refresh(&credentials(), at(now)).unwrap();
    assert_eq!(identity.look_after(at(now)), SHORTEST_LOOK);
    assert!(refresh(now).is_some());
    // Its date is in the future too, and yet it is new.
    for later in [0, 1, DAY, 7 * DAY - 1] {
        assert_eq!(refresh(now + later), None, "{later}");
    }
    assert_eq!(identity.look_after(at(now)), Duration::from_hours(1));
    assert!(refresh(now + 7 * DAY).is_some());
    assert_eq!(refresh(now + 7 * DAY + 1), None);
}

#[test]
fn a_key_from_a_clock_that_is_a_little_ahead_is_as_good_as_any() {
    let dir = tempfile::tempdir().unwrap();
    let now = 1_000 * DAY;
    let identity = identity(&dir, now + DAY);
    let refresh = |now: u64| identity.refresh(&credentials(), at(now)).unwrap();
    assert_eq!(refresh(now), None);
    assert_eq!(refresh(now + 8 * DAY - 1), None);
    assert!(refresh(now + 8 * DAY).is_some());
}
