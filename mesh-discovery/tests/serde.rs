//! How entries of a static list read from configuration.
#![cfg(feature = "serde")]

use mesh_discovery::StaticEntry;

fn read(text: &str) -> Result<StaticEntry, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn three_fields_are_enough() {
    let entry = read(r#"{ "id": "order-service", "host": "10.0.0.7", "port": 50051 }"#).unwrap();
    let expected = StaticEntry::new(
        "order-service".parse().unwrap(),
        "10.0.0.7".parse().unwrap(),
        50051,
    );
    assert_eq!(entry, expected);
    let (service, endpoint) = entry.into_endpoint();
    assert_eq!(
        (service.as_str(), endpoint.id.as_str()),
        ("order-service", "10.0.0.7:50051")
    );
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    let mut entry = StaticEntry::new(
        "orders".parse().unwrap(),
        "orders.internal".parse().unwrap(),
        1,
    );
    entry.instance = Some("orders-1".to_owned());
    entry.tags = vec!["canary".to_owned()];
    entry.spiffe_id = Some("spiffe://example.org/orders".to_owned());
    let text = serde_json::to_string(&entry).unwrap();
    assert_eq!(read(&text), Ok(entry));
}

// threat 49, threat 51
#[test]
fn wrong_values_are_refused_while_reading() {
    for (field, value, expected) in [
        ("id", r#""a b""#, "must not contain ' '"),
        ("host", r#""169.254.169.254""#, "special range"),
        ("host", r#""0x7f.1""#, "must not end in a number"),
        ("port", "65536", "expected u16"),
        ("weight", "0", "expected a nonzero u16"),
        ("weight", "4294967296", "expected a nonzero u16"),
        ("weight", "NaN", "expected"),
        ("wieght", "1", "unknown field `wieght`"),
    ] {
        let mut fields = vec![
            ("id", r#""orders""#),
            ("host", r#""10.0.0.7""#),
            ("port", "1"),
        ];
        fields.retain(|(name, _)| *name != field);
        fields.push((field, value));
        let body: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\": {value}"))
            .collect();
        let error = read(&format!("{{ {} }}", body.join(", "))).unwrap_err();
        assert!(error.contains(expected), "{field}: {error}");
    }
}
