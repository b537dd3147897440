//! The grammar of SPIFFE ids, case by case.

use proptest::prelude::*;

use super::*;

fn refused(id: &str, because: &SpiffeIdError) {
    assert_eq!(SpiffeId::parse(id).as_ref(), Err(because), "{id}");
}

#[test]
fn accepts_the_ids_of_the_specification() {
    for (id, domain, path) in [
        ("spiffe://example.org", "example.org", ""),
        (
            "spiffe://example.org/user-service",
            "example.org",
            "/user-service",
        ),
        (
            "spiffe://staging.example.com/payments/mysql",
            "staging.example.com",
            "/payments/mysql",
        ),
        (
            "spiffe://k8s-west.example.com/ns/staging/sa/default",
            "k8s-west.example.com",
            "/ns/staging/sa/default",
        ),
        ("spiffe://1.2.3.4/A_b.c-9", "1.2.3.4", "/A_b.c-9"),
        ("spiffe://example.org/...", "example.org", "/..."),
    ] {
        let parsed = SpiffeId::parse(id).unwrap();
        assert_eq!(
            (parsed.trust_domain().as_str(), parsed.path()),
            (domain, path)
        );
        assert_eq!(parsed.to_string(), id);
    }
}

// threat 7
#[test]
fn refuses_every_trick_of_the_grammar() {
    use SpiffeIdError as E;
    refused("", &E::Scheme);
    refused("SPIFFE://example.org/a", &E::Scheme);
    refused("spiffe:/example.org/a", &E::Scheme);
    refused("https://example.org/a", &E::Scheme);
    refused("spiffe://", &E::EmptyTrustDomain);
    refused("spiffe:///a", &E::EmptyTrustDomain);
    refused("spiffe://Example.org/a", &E::TrustDomainCharacter { at: 0 });
    refused(
        "spiffe://example.org:80/a",
        &E::TrustDomainCharacter { at: 11 },
    );
    refused(
        "spiffe://user@example.org/a",
        &E::TrustDomainCharacter { at: 4 },
    );
    refused(
        "spiffe://exam%70le.org/a",
        &E::TrustDomainCharacter { at: 4 },
    );
    refused("spiffe://exämple.org/a", &E::TrustDomainCharacter { at: 2 });
    refused(
        "spiffe://example.org?q",
        &E::TrustDomainCharacter { at: 11 },
    );
    refused("spiffe://example.org/", &E::EmptySegment);
    refused("spiffe://example.org/a/", &E::EmptySegment);
    refused("spiffe://example.org/a//b", &E::EmptySegment);
    refused("spiffe://example.org//a", &E::EmptySegment);
    refused("spiffe://example.org/a/../b", &E::DotSegment);
    refused("spiffe://example.org/./b", &E::DotSegment);
    refused("spiffe://example.org/a%2fb", &E::PathCharacter { at: 2 });
    refused("spiffe://example.org/a?q", &E::PathCharacter { at: 2 });
    refused("spiffe://example.org/a#f", &E::PathCharacter { at: 2 });
    refused("spiffe://example.org/a\0", &E::PathCharacter { at: 2 });
    refused("spiffe://example.org/a b", &E::PathCharacter { at: 2 });
}

// threat 7
#[test]
fn holds_the_length_limits_to_the_byte() {
    let domain = "d".repeat(MAX_TRUST_DOMAIN_BYTES);
    TrustDomain::parse(&domain).unwrap();
    assert_eq!(
        TrustDomain::parse(&format!("{domain}d")),
        Err(SpiffeIdError::TrustDomainTooLong { bytes: 256 })
    );
    let longest = format!("spiffe://d/{}", "a".repeat(MAX_ID_BYTES - 11));
    assert_eq!(
        SpiffeId::parse(&longest).unwrap().as_str().len(),
        MAX_ID_BYTES
    );
    refused(
        &format!("{longest}a"),
        &SpiffeIdError::TooLong { bytes: 2049 },
    );
}

#[test]
fn names_a_service_in_its_domain() {
    let domain = TrustDomain::parse("example.org").unwrap();
    let id = SpiffeId::for_service(&domain, "order-service").unwrap();
    assert_eq!(id.as_str(), "spiffe://example.org/order-service");
    assert_eq!(id.service(), "order-service");
    assert_eq!(id.trust_domain(), &domain);
    assert_eq!(id.trust_domain().id(), domain.id());
    assert_eq!(domain.id().as_str(), "spiffe://example.org");
    assert_eq!(
        SpiffeId::for_service(&domain, ""),
        Err(SpiffeIdError::EmptySegment)
    );
    assert_eq!(
        SpiffeId::for_service(&domain, "../x"),
        Err(SpiffeIdError::DotSegment)
    );
}

proptest! {
    #[test]
    fn what_parses_prints_the_same_and_holds_nothing_strange(text in "(spiffe://)?[a-zA-Z0-9._%/:@?-]{0,24}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert!(!id.path().contains("//") && !id.path().ends_with('/') && !text.contains(['%', '@', '?']));
        }
    }
}
