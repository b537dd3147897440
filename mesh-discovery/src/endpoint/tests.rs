//! Which lists of endpoints are accepted.

use proptest::prelude::*;

use super::*;

fn endpoint() -> Endpoint {
    Endpoint::new("10.0.0.7".parse().unwrap(), 50051)
}

fn check(change: impl FnOnce(&mut Endpoint), expected: Option<&'static str>) {
    let mut endpoint = endpoint();
    change(&mut endpoint);
    let field = match Endpoints::new(vec![endpoint], 1) {
        Ok(_) => None,
        Err(Error::Field { field, .. }) => Some(field),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(field, expected);
}

// threat 51
#[test]
fn checks_every_field() {
    check(|_| {}, None);
    check(|e| e.id.clear(), Some("id"));
    check(|e| e.id = "a\nlevel=error".into(), Some("id"));
    check(|e| e.id = "i".repeat(512), None);
    check(|e| e.id = "i".repeat(513), Some("id"));
    check(|e| e.port = 0, Some("port"));
    check(|e| e.weight = NonZeroU16::MAX, None);
    check(|e| e.zone = Some("zone-a".into()), None);
    check(|e| e.zone = Some(String::new()), Some("zone"));
    check(|e| e.version = Some("\u{1b}[31m".into()), Some("version"));
    check(
        |e| e.public_key_fingerprint = Some("f".repeat(513)),
        Some("public key fingerprint"),
    );
    check(|e| e.tags = vec!["t".into(); 64], None);
    check(|e| e.tags = vec!["t".into(); 65], Some("list of tags"));
    check(|e| e.tags = vec!["t\0".into()], Some("tag"));
    check(
        |e| e.spiffe_id = Some("spiffe://example.org/orders".into()),
        None,
    );
    check(
        |e| e.spiffe_id = Some("https://example.org/orders".into()),
        Some("spiffe id"),
    );
    check(
        |e| e.spiffe_id = Some("spiffe://example.org/a b".into()),
        Some("spiffe id"),
    );
    check(
        |e| e.spiffe_id = Some(format!("spiffe://{}", "a".repeat(2040))),
        Some("spiffe id"),
    );
}

// threat 51
#[test]
fn holds_no_more_than_the_limit() {
    let many = |count: usize| -> Vec<_> {
        let with_id = |i: usize| Endpoint {
            id: i.to_string(),
            ..endpoint()
        };
        (0..count).map(with_id).collect()
    };
    assert_eq!(Endpoints::new(many(10_000), 1).unwrap().len(), 10_000);
    let refused = Endpoints::new(many(10_001), 1).unwrap_err();
    assert_eq!(
        refused,
        Error::TooManyEndpoints {
            count: 10_001,
            limit: 10_000
        }
    );
}

#[test]
fn refuses_two_endpoints_of_one_id() {
    let refused = Endpoints::new(vec![endpoint(), endpoint()], 1).unwrap_err();
    assert_eq!(
        refused,
        Error::DuplicateId {
            id: "10.0.0.7:50051".into()
        }
    );
}

#[test]
fn an_id_in_an_error_is_escaped_and_short() {
    let id = format!("\n{}", "x".repeat(1000));
    let error = Endpoints::new(vec![Endpoint { id, ..endpoint() }], 1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("\\nxxx") && error.len() < 200, "{error}");
}

#[test]
fn an_unchanged_endpoint_keeps_its_place_in_memory() {
    let other = Endpoint {
        id: "b".into(),
        ..endpoint()
    };
    let before = Endpoints::new(vec![endpoint(), other.clone()], 1).unwrap();
    let heavier = Endpoint {
        weight: NonZeroU16::MAX,
        ..other
    };
    let after = Endpoints::new(vec![heavier, endpoint()], 2)
        .unwrap()
        .reusing(&before);
    assert!(Arc::ptr_eq(&after[1], &before[0]));
    assert!(!Arc::ptr_eq(&after[0], &before[1]));
    assert_eq!(after[0].weight, NonZeroU16::MAX);
}

proptest! {
    #[test]
    fn no_text_in_an_endpoint_makes_a_list_panic(id in any::<String>(), tag in any::<String>(), spiffe in any::<String>()) {
        let hostile = Endpoint { id, tags: vec![tag], spiffe_id: Some(spiffe), ..endpoint() };
        if let Ok(list) = Endpoints::new(vec![hostile], 1) {
            prop_assert!(!list[0].id.chars().any(char::is_control));
        }
    }
}
