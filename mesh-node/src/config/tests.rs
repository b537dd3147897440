//! The reference file, against the structs.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::tree::Kind;
use super::*;

const REFERENCE: &str = include_str!("../../config/reference.yaml");

fn parse(text: &str) -> Node {
    Node::parse(text, "reference.yaml").unwrap()
}

#[test]
fn the_reference_file_says_the_defaults() {
    let document =
        Document::parse(REFERENCE, Path::new("reference.yaml"), &Environment::new()).unwrap();
    let certs = Path::new("certs");
    let identity = IdentityConfig::from_files(
        "example.org",
        &certs.join("my-service.crt"),
        &certs.join("my-service.key"),
        &certs.join("ca.crt"),
    );
    assert_eq!(
        document.config().unwrap(),
        NodeConfig::new("my-service", identity)
    );
}

#[test]
fn the_reference_file_has_every_key_and_no_other() {
    let every_line = REFERENCE.replace("#: ", "");
    let mut root = parse(&every_line);
    let environment = Environment::from([(
        "JWT_SECRET".to_owned(),
        "q7Zk0vX3mT9bLw2RdY6uHs4NcP8eAj1G".to_owned(),
    )]);
    expand::expand(&mut root, &environment, "reference.yaml").unwrap();
    let _config: NodeConfig = decode::decode(&root, "reference.yaml").unwrap();

    let mut shown = BTreeSet::new();
    keys_of(&root, "", &mut shown);
    for (path, form) in other_forms() {
        keys_of(&form, &format!(".{path}"), &mut shown);
    }
    let (schema, mut known) = (NodeConfig::schema(), BTreeSet::new());
    keys_of_schema(&schema, &schema, "", &mut known);
    assert_eq!(shown, known);
}

#[test]
fn what_can_not_be_balanced_is_refused_with_its_key() {
    let parsed = |resilience: &str| {
        let identity = "{ trust_domain: example.org, cert_file: a, key_file: b, ca_file: c }";
        let text =
            format!("service: {{ id: a }}\nidentity: {identity}\nresilience: {resilience}\n");
        let document = Document::parse(&text, Path::new("mesh.yaml"), &Environment::new());
        document.and_then(|document| document.config())
    };
    let hash = |on: &str| format!("{{ load_balancing: {{ policy: maglev, hash_on: {on} }} }}");
    for (resilience, key) in [
        (
            "{ load_balancing: { policy: ring_hash } }",
            "load_balancing.policy",
        ),
        (
            "{ load_balancing: { hash_on: { caller: true } } }",
            "load_balancing.hash_on",
        ),
        (
            &hash("{ header: a, caller: true }"),
            "load_balancing.hash_on",
        ),
        (&hash("{ header: 'a b' }"), "load_balancing.hash_on"),
        (&hash("{}"), "load_balancing.hash_on"),
        (
            "{ load_balancing: { slow_start: { aggression: 0 } } }",
            "load_balancing",
        ),
        (
            "{ outlier_ejection: { max_percent: 101 } }",
            "outlier_ejection.max_percent",
        ),
        (
            "{ outlier_ejection: { failure_rate: { ratio: 2 } } }",
            "outlier_ejection.failure_rate.ratio",
        ),
    ] {
        let error = parsed(resilience).unwrap_err();
        assert_eq!(error.key, format!("resilience.{key}"), "{error}");
    }
    for fine in ["{ header: x-user }", "{ cookie: user }", "{ caller: true }"] {
        parsed(&hash(fine)).unwrap();
    }
}

/// What stands behind `#|`: another form of the key that it names.
fn other_forms() -> Vec<(&'static str, Node)> {
    let lines = REFERENCE.lines();
    let forms = lines.filter_map(|line| line.trim_start().strip_prefix("#| ")?.split_once(": "));
    forms.map(|(path, form)| (path, parse(form))).collect()
}

#[test]
fn other_forms_in_the_reference_file_can_be_read() {
    let forms = other_forms();
    assert_eq!(forms.len(), 1);
    for (path, form) in forms {
        assert_eq!(path, "resilience.rate_limit.store");
        let _store: RateLimitStoreConfig = decode::decode(&form, "reference.yaml").unwrap();
    }
}

#[test]
fn every_key_is_documented() {
    let schema = NodeConfig::schema();
    let sections = schema["$defs"]
        .as_object()
        .unwrap()
        .values()
        .chain([&schema]);
    for (name, key) in sections
        .filter_map(|section| section["properties"].as_object())
        .flatten()
    {
        assert!(key["description"].is_string(), "{name} has no description");
    }
}

fn keys_of(node: &Node, path: &str, found: &mut BTreeSet<String>) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, below) in entries {
                let path = format!("{path}.{}", key.text);
                keys_of(below, &path, found);
                found.insert(path);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| keys_of(item, path, found)),
        _ => {}
    }
}

fn keys_of_schema(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let name = schema["$ref"].as_str();
    let schema = name
        .and_then(|name| root.pointer(name.trim_start_matches('#')))
        .unwrap_or(schema);
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        keys_of_schema(root, below, &path, found);
        found.insert(path);
    }
    let shapes = ["anyOf", "oneOf"].map(|shapes| schema[shapes].as_array());
    shapes
        .into_iter()
        .flatten()
        .flatten()
        .chain(schema.get("items"))
        .for_each(|below| keys_of_schema(root, below, path, found));
}
