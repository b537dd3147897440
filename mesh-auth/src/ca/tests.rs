//! What the authority issues obeys the rules that peers check.

use super::validity::END_OF_TIME;
use super::*;
use crate::svid::{inspect, leaf_identity, signing_identity};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn authority() -> Authority {
    Authority::generate(&domain(), Duration::from_hours(24), now()).unwrap()
}

fn alice() -> SpiffeId {
    SpiffeId::for_service(&domain(), "alice").unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn issues_workload_certificates_that_pass_every_rule() {
    let authority = authority();
    assert_eq!(
        signing_identity(&der(authority.certificate_pem())).unwrap(),
        Some(domain())
    );
    let issued = authority
        .issue(
            &alice(),
            Duration::from_hours(1),
            now(),
            &["alice", "*.alice.local", "10.0.0.7", "::1"],
        )
        .unwrap();
    let certificate = der(&issued.certificate_pem);
    assert_eq!(leaf_identity(&certificate).unwrap(), alice());
    let facts = inspect(&certificate).unwrap();
    assert_eq!(facts.dns_names, ["alice", "*.alice.local"]);
    assert_eq!(facts.ip_addresses.len(), 2);
    assert_eq!(
        (facts.not_before, facts.not_after),
        (now() - BACKDATE, now() + Duration::from_hours(1))
    );
    assert_eq!(facts.not_after, issued.not_after);
    let root = der(authority.certificate_pem());
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    let (_, leaf) = X509Certificate::from_der(&certificate).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    KeyPair::from_pem(&issued.key_pem).unwrap();
    assert!(!format!("{issued:?} {authority:?}").contains("PRIVATE"));
}

#[test]
fn no_certificate_outlives_or_precedes_its_authority() {
    let authority = authority();
    let long = authority
        .issue(&alice(), Duration::from_hours(48), now(), &[])
        .unwrap();
    assert_eq!(long.not_after, authority.not_after());
    assert_eq!(
        inspect(&der(&long.certificate_pem)).unwrap().not_before,
        now() - BACKDATE
    );
    let early = authority
        .issue(
            &alice(),
            Duration::from_hours(1),
            now() - Duration::from_secs(30),
            &[],
        )
        .unwrap();
    assert_eq!(
        inspect(&der(&early.certificate_pem)).unwrap().not_before,
        now() - BACKDATE
    );
    for outside in [now() - Duration::from_secs(61), authority.not_after()] {
        assert!(matches!(
            authority.issue(&alice(), BACKDATE, outside, &[]),
            Err(CaError::NotValidNow)
        ));
    }
    assert!(matches!(
        authority.issue(&alice(), Duration::ZERO, now(), &[]),
        Err(CaError::Time)
    ));
    let forever = Authority::generate(&domain(), Duration::from_secs(END_OF_TIME), now());
    assert!(matches!(forever, Err(CaError::Time)));
}

#[test]
fn names_only_its_own_workloads() {
    let authority = authority();
    for id in ["spiffe://example.com/alice", "spiffe://example.org"] {
        let refused = authority.issue(&SpiffeId::parse(id).unwrap(), BACKDATE, now(), &[]);
        assert!(matches!(refused, Err(CaError::NotOurs { .. })), "{id}");
    }
    for name in [
        "",
        "a b",
        "-a",
        "a..b",
        "*",
        "spiffe://example.org/bob",
        "a\0b",
        "ü",
    ] {
        assert!(
            matches!(
                authority.issue(&alice(), BACKDATE, now(), &[name]),
                Err(CaError::Name { .. })
            ),
            "{name}"
        );
    }
    assert!(matches!(
        authority.issue(&alice(), BACKDATE, now(), &["a"; 101]),
        Err(CaError::TooManyNames { names: 101 })
    ));
}

#[test]
fn is_taken_up_from_its_files() {
    let first = authority();
    let again = Authority::from_pem(first.certificate_pem(), &first.key_pem()).unwrap();
    assert_eq!(again.trust_domain(), &domain());
    let issued = again
        .issue(&alice(), Duration::from_hours(1), now(), &[])
        .unwrap();
    let (root, leaf) = (der(first.certificate_pem()), der(&issued.certificate_pem));
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(leaf.issuer(), root.subject());
    assert!(matches!(
        Authority::from_pem(first.certificate_pem(), &authority().key_pem()),
        Err(CaError::KeyMismatch)
    ));
    assert!(matches!(
        Authority::from_pem(&issued.certificate_pem, &issued.key_pem),
        Err(CaError::Certificate(_))
    ));
    assert!(matches!(
        Authority::from_pem("nothing", &first.key_pem()),
        Err(CaError::Pem(_))
    ));
    assert!(matches!(
        Authority::from_pem(first.certificate_pem(), "nothing"),
        Err(CaError::NoKey)
    ));
    // Of several keys the certificate's is taken.
    let two = format!("{}{}", *authority().key_pem(), *first.key_pem());
    assert_eq!(
        *Authority::from_pem(first.certificate_pem(), &two)
            .unwrap()
            .key_pem(),
        *first.key_pem()
    );
}

#[test]
fn no_workload_gets_the_name_of_the_authoritys_server() {
    let authority = authority();
    let server = authority.server_id().unwrap();
    assert_eq!(server.as_str(), "spiffe://example.org/mesh-ca");
    assert!(matches!(
        authority.issue(&server, BACKDATE, now(), &[]),
        Err(CaError::Reserved { .. })
    ));
    let own = authority
        .issue_to_server(BACKDATE, now(), &["127.0.0.1"])
        .unwrap();
    assert_eq!(leaf_identity(&der(&own.certificate_pem)).unwrap(), server);
}

#[test]
fn serial_numbers_are_twenty_octets_and_never_the_same() {
    let authority = authority();
    let key = csr::PendingKey::generate().unwrap();
    let request = SigningRequest::from_pem(key.request_pem().unwrap().as_bytes()).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let signed = authority.sign(&request, &alice(), BACKDATE, now()).unwrap();
        let serial = inspect(&der(&signed.certificate_pem)).unwrap().serial;
        assert_eq!(serial, signed.serial);
        assert_eq!(serial.split(':').count(), 20, "{serial}");
        assert!(seen.insert(serial));
    }
    let (one, other) = (authority.facts(), self::authority());
    assert_ne!(one.serial, other.facts().serial);
    assert_ne!(one.subject, other.facts().subject);
}
