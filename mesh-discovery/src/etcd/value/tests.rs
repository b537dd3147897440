//! Values that are right, and many that are not.

use proptest::prelude::*;

use super::*;

fn full() -> Endpoint {
    let mut endpoint = Endpoint::new("2001:db8::7".parse().unwrap(), 443);
    endpoint.id = "orders/1".to_owned();
    endpoint.weight = NonZeroU16::MAX;
    endpoint.priority = 3;
    endpoint.zone = Some("a".to_owned());
    endpoint.version = Some("1.2".to_owned());
    endpoint.public_key_fingerprint = Some("SHA256:x".to_owned());
    endpoint.spiffe_id = Some("spiffe://example.org/orders".to_owned());
    endpoint.tags = vec!["blue".to_owned(), "\"quoted\"".to_owned()];
    endpoint
        .metadata
        .insert("team".to_owned(), "shop".to_owned());
    endpoint.condition = Condition::Warning;
    endpoint
}

#[test]
fn what_is_written_reads_back_the_same() {
    for endpoint in [full(), Endpoint::new("orders.example".parse().unwrap(), 1)] {
        let written = write(&endpoint, endpoint.condition);
        assert_eq!(read(&endpoint.id, &written).unwrap(), endpoint);
    }
    let written = write(&full(), Condition::Draining);
    assert_eq!(read("1", &written).unwrap().condition, Condition::Draining);
}

#[test]
fn only_host_and_port_are_needed_and_unknown_fields_are_ignored() {
    let least = read("7", br#"{"host":"10.0.0.7","port":80}"#).unwrap();
    let mut expected = Endpoint::new("10.0.0.7".parse().unwrap(), 80);
    expected.id = "7".to_owned();
    assert_eq!(least, expected);
    let more = br#"{"host":"10.0.0.7","port":80,"weight":null,"zone":"","new":{"deep":[1]}}"#;
    assert_eq!(read("7", more).unwrap(), expected);
}

#[test]
fn well_known_metadata_counts_where_its_own_field_does_not_say_otherwise() {
    let value = br#"{"host":"10.0.0.7","port":80,"version":"2",
        "metadata":{"weight":"5","version":"1","team":"shop"}}"#;
    let endpoint = read("7", value).unwrap();
    assert_eq!(endpoint.weight.get(), 5);
    assert_eq!(endpoint.version.as_deref(), Some("2"));
    assert_eq!(endpoint.metadata.len(), 1);
}

// threat 51
#[test]
fn a_value_that_is_wrong_is_refused_and_the_error_names_instance_and_field() {
    for (fields, named) in [
        (r#""port":80"#, "host"),
        (r#""host":7,"port":80"#, "host"),
        (r#""host":"0.0.0.0","port":80"#, "host"),
        (r#""host":"a b","port":80"#, "host"),
        (r#""host":"a""#, "port"),
        (r#""host":"a","port":0"#, "port"),
        (r#""host":"a","port":65536"#, "port"),
        (r#""host":"a","port":"80""#, "port"),
        (r#""host":"a","port":80.5"#, "port"),
        (r#""host":"a","port":80,"weight":0"#, "weight"),
        (r#""host":"a","port":80,"weight":4294967296"#, "weight"),
        (r#""host":"a","port":80,"weight":-1"#, "weight"),
        (r#""host":"a","port":80,"priority":1e9"#, "priority"),
        (r#""host":"a","port":80,"zone":1"#, "zone"),
        (r#""host":"a","port":80,"zone":"\u0000""#, "zone"),
        (r#""host":"a","port":80,"tags":"x""#, "tags"),
        (r#""host":"a","port":80,"tags":[1]"#, "tags"),
        (r#""host":"a","port":80,"metadata":[]"#, "metadata"),
        (r#""host":"a","port":80,"metadata":{"a":1}"#, "metadata"),
        (
            r#""host":"a","port":80,"metadata":{"weight":"0"}"#,
            "weight",
        ),
        (r#""host":"a","port":80,"spiffe_id":"orders""#, "spiffe id"),
        (r#""host":"a","port":80,"condition":"good""#, "condition"),
    ] {
        let error = read("orders-1", format!("{{{fields}}}").as_bytes()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("orders-1") && text.contains(named),
            "{fields}: {text}"
        );
    }
    for value in [
        &b""[..],
        b"[]",
        b"null",
        b"{",
        b"\"x\"",
        b"{\"host\":\"\xff\"}",
    ] {
        let text = read("orders-1", value).unwrap_err().to_string();
        assert!(text.contains("orders-1"), "{text}");
    }
}

// threat 51
#[test]
fn what_is_large_or_deep_is_refused_without_being_parsed_far() {
    let large = format!(
        r#"{{"host":"a","port":80,"x":"{}"}}"#,
        "x".repeat(MAX_VALUE)
    );
    read("1", large.as_bytes()).unwrap_err();
    let deep = "[".repeat(MAX_VALUE);
    read("1", deep.as_bytes()).unwrap_err();
    let long = format!(r#"{{"host":"a","port":80,"zone":"{}"}}"#, "x".repeat(513));
    read("1", long.as_bytes()).unwrap_err();
    let error = read(&"x".repeat(600), br#"{"host":"a","port":80}"#).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
}

proptest! {
    #[test]
    fn no_value_panics_and_what_is_read_can_be_written(
        id in "\\PC{0,20}",
        value in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "\\{\"host\":\"[a-z.]{1,9}\",\"port\":[0-9]{1,5},\"(zone|weight|tags|metadata)\":(null|1|\"x\"|\\[\"x\"\\]|\\{\"a\":\"b\"\\})\\}"
                .prop_map(String::into_bytes),
        ],
    ) {
        if let Ok(endpoint) = read(&id, &value) {
            let written = write(&endpoint, endpoint.condition);
            prop_assert_eq!(read(&id, &written).unwrap(), endpoint);
        }
    }
}
