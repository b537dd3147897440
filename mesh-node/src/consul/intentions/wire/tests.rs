//! Intentions as Consul writes them, and those that can't be enforced here.

use serde_json::json;

use super::*;

fn read(changes: &Value) -> Result<IntentionConfig, String> {
    // As Consul 1.8 answers.
    let mut written = json!({
        "ID": "1f", "Description": "", "SourceNS": "default", "SourceName": "web", "DestinationNS": "default",
        "DestinationName": "orders", "SourceType": "consul", "Action": "deny", "DefaultAddr": "", "DefaultPort": 0,
        "Meta": { "team": "shop" }, "Precedence": 9, "CreatedAt": "2026-11-22T11:50:22Z", "Hash": "wnz5", "CreateIndex": 13,
    });
    for (key, value) in changes.as_object().unwrap() {
        written[key] = value.clone();
    }
    let written: Intention = serde_json::from_value(written).map_err(|error| error.to_string())?;
    written.read().map_err(|error| error.to_string())
}

#[test]
fn reads_an_intention_of_consul_1_8() {
    let expected = IntentionConfig::new("web", "orders", IntentionAction::Deny).with_id("1f");
    assert_eq!(read(&json!({})).unwrap(), expected);
}

#[test]
fn reads_permissions() {
    let header = json!({ "Name": "x-team", "Exact": "shop", "Invert": true });
    let http = json!({ "PathPrefix": "/v1", "Methods": ["GET"], "Header": [header] });
    let permissions = json!([ { "Action": "allow", "HTTP": http }, { "Action": "deny" } ]);
    let found = read(&json!({ "Action": "", "Permissions": permissions })).unwrap();
    let mut inverted = IntentionHeader::exact("x-team", "shop");
    inverted.invert = true;
    let expected = vec![
        IntentionPermission::new(IntentionAction::Allow)
            .with_path_prefix("/v1")
            .with_methods(&["GET"])
            .with_header(inverted),
        IntentionPermission::new(IntentionAction::Deny),
    ];
    assert_eq!(found.permissions, expected);
    assert_eq!(found.action, None);
}

#[test]
fn what_is_not_enforced_as_it_stands_is_refused() {
    let permission =
        |http: Value| json!({ "Permissions": [ { "Action": "allow", "HTTP": http } ] });
    for (changes, expected) in [
        (json!({ "SourceNS": "team" }), "SourceNS"),
        (
            json!({ "DestinationPartition": "east" }),
            "DestinationPartition",
        ),
        (json!({ "SourcePeer": "cluster-2" }), "SourcePeer"),
        (json!({ "SourceSamenessGroup": "g" }), "SourceSamenessGroup"),
        (json!({ "JWT": { "Providers": [{}] } }), "JWT"),
        (json!({ "SourceType": "external-uri" }), "SourceType"),
        (json!({ "Action": "maybe" }), "Action"),
        (permission(json!({ "PathRegex": "/a.*" })), "PathRegex"),
        (permission(json!({ "PathSuffix": "/a" })), "PathSuffix"),
        (
            permission(json!({ "Header": [ { "Name": "a", "Regex": "b" } ] })),
            "regular expression",
        ),
        (
            permission(json!({ "Header": [ { "Name": "a", "Like": "b" } ] })),
            "Like",
        ),
    ] {
        let error = read(&changes).unwrap_err();
        assert!(error.contains(expected), "{changes}: {error}");
    }
}
