//! One root takes the place of another, and every step can be read back from its texts.

use std::time::{Duration, SystemTime};

use super::*;
use crate::spiffe::SpiffeId;
use crate::svid::inspect;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn authority() -> Authority {
    Authority::generate(&domain(), Duration::from_hours(24), now()).unwrap()
}

fn reread(set: &RootSet) -> RootSet {
    let again = RootSet::from_pem(&set.certificates_pem(), &set.keys_pem()).unwrap();
    assert_eq!(again.certificates_pem(), set.certificates_pem());
    assert_eq!(*again.keys_pem(), *set.keys_pem());
    again
}

/// Fingerprints, the signer's first.
fn trusted(set: &RootSet) -> Vec<String> {
    let others = set.others().iter().map(|root| &root.facts);
    std::iter::once(set.signer().facts())
        .chain(others)
        .map(|facts| facts.fingerprint.clone())
        .collect()
}

fn signs(set: &RootSet, root: &Authority) -> bool {
    let id = SpiffeId::for_service(&domain(), "alice").unwrap();
    let issued = set
        .signer()
        .issue(&id, Duration::from_hours(1), now(), &[])
        .unwrap();
    let leaf = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
    inspect(&leaf).unwrap().issuer == root.facts().subject
}

#[test]
fn a_root_replaces_another_in_three_steps() {
    let (old, new) = (authority(), authority());
    let of = |root: &Authority| root.facts().fingerprint.clone();
    let take = |root: &Authority| Authority::from_pem(root.certificate_pem(), &root.key_pem());

    let mut set = RootSet::new(take(&old).unwrap());
    set.prepare(take(&new).unwrap()).unwrap();
    let mut set = reread(&set);
    assert_eq!(trusted(&set), [of(&old), of(&new)]);
    assert!(signs(&set, &old));

    set.activate(&of(&new)).unwrap();
    let mut set = reread(&set);
    assert_eq!(trusted(&set), [of(&new), of(&old)]);
    assert!(signs(&set, &new));

    let last = now() + Duration::from_hours(1);
    for early in [now(), last] {
        let refused = set.finish(&of(&old), last, early);
        assert!(matches!(refused, Err(RootsError::StillInUse)));
    }
    let refused = set.finish(&of(&new), now(), last);
    assert!(matches!(refused, Err(RootsError::Unknown)));
    set.finish(&of(&old), last, last + Duration::from_secs(1))
        .unwrap();
    assert_eq!(trusted(&reread(&set)), [of(&new)]);
}

#[test]
fn roots_that_do_not_belong_are_refused() {
    let other = TrustDomain::parse("example.com").unwrap();
    let foreign = || Authority::generate(&other, Duration::from_hours(24), now()).unwrap();
    let mut set = RootSet::new(authority());
    assert!(matches!(
        set.prepare(foreign()),
        Err(RootsError::OtherDomain)
    ));
    let next = authority();
    let again = Authority::from_pem(next.certificate_pem(), &next.key_pem()).unwrap();
    set.prepare(next).unwrap();
    assert!(matches!(set.prepare(again), Err(RootsError::Twice)));
    while set.others().len() + 1 < MAX_ROOTS {
        set.prepare(authority()).unwrap();
    }
    assert!(matches!(set.prepare(authority()), Err(RootsError::TooMany)));
    reread(&set);

    let one = authority();
    let both = format!("{}{}", one.certificate_pem(), foreign().certificate_pem());
    assert!(matches!(
        RootSet::from_pem(&both, &one.key_pem()),
        Err(RootsError::OtherDomain)
    ));
    let twice = one.certificate_pem().repeat(2);
    assert!(matches!(
        RootSet::from_pem(&twice, &one.key_pem()),
        Err(RootsError::Twice)
    ));
    assert!(matches!(
        RootSet::from_pem("", &one.key_pem()),
        Err(RootsError::Empty)
    ));
    assert!(matches!(
        RootSet::from_pem(one.certificate_pem(), &authority().key_pem()),
        Err(RootsError::Signer(CaError::KeyMismatch))
    ));
}

#[test]
fn a_root_without_its_key_is_trusted_and_never_signs() {
    let (one, other) = (authority(), authority());
    let both = format!(
        "{}\nnotes\n{}",
        one.certificate_pem(),
        other.certificate_pem()
    );
    let mut set = RootSet::from_pem(&both, &one.key_pem()).unwrap();
    assert_eq!(trusted(&set).len(), 2);
    let refused = set.activate(&other.facts().fingerprint);
    assert!(matches!(refused, Err(RootsError::NoKey)));
    assert!(signs(&set, &one));
    assert!(!format!("{set:?}").contains("PRIVATE"));
}
