//! What is asked for, and how old an answer may be.

use super::*;

fn service() -> ServiceName {
    ServiceName::parse("order-service").unwrap()
}

#[test]
fn a_source_asks_for_what_it_is_configured_for_and_escapes_it() {
    let plain = SourceConfig::default();
    assert_eq!(plain.path(&service()), "/v1/health/service/order-service");
    let full = plain
        .with_datacenter("dc 2")
        .with_tags(vec!["a&b=c".to_owned(), "v2".to_owned()])
        .with_consistency(Consistency::Verified);
    assert_eq!(
        full.path(&service()),
        "/v1/health/service/order-service?dc=dc%202&tag=a%26b%3Dc&tag=v2&consistent"
    );
    let any = Consistency::Any {
        max_age: Duration::from_secs(5),
    };
    let any = SourceConfig::default().with_consistency(any);
    assert!(any.path(&service()).ends_with("?stale"));
}

#[test]
fn settings_that_consul_would_take_for_none_are_refused() {
    for bad in [
        SourceConfig::default().with_datacenter(""),
        SourceConfig::default().with_tags(vec![String::new()]),
        SourceConfig::default().with_wait(Duration::ZERO),
    ] {
        assert!(matches!(bad.check(), Err(Error::Setting { .. })), "{bad:?}");
    }
}

#[test]
fn an_answer_of_any_server_may_be_as_old_as_was_said_and_no_older() {
    let any = SourceConfig::default().with_consistency(Consistency::Any {
        max_age: Duration::from_secs(5),
    });
    for (leader, contact, expected) in [
        ("true", "0", None),
        ("true", "5000", None),
        ("true", "5001", Some(5001)),
        ("true", "x", None),
        ("false", "0", Some(0)),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("x-consul-knownleader", leader.parse().unwrap());
        headers.insert("x-consul-lastcontact", contact.parse().unwrap());
        assert_eq!(
            any.too_old(&headers),
            expected.map(Duration::from_millis),
            "{leader} {contact}"
        );
        // The leader's own answer says the same where it has just come into office.
        assert_eq!(SourceConfig::default().too_old(&headers), None);
    }
    assert_eq!(any.too_old(&HeaderMap::new()), None);
}
