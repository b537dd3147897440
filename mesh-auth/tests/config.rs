//! Configuration as it is read from text.
#![cfg(feature = "serde")]

use mesh_auth::policy::{Action, DefaultAction, Policy, PolicyConfig, RuleConfig};
use mesh_auth::request::Limits;
use mesh_auth::spiffe::{SpiffeId, TrustDomain};

fn policy(json: &str) -> Result<PolicyConfig, serde_json::Error> {
    serde_json::from_str(json)
}

#[test]
fn a_policy_reads_as_documented() {
    let read = policy(
        r#"{"default": "deny", "rules": [{"name": "users-read-orders", "from": ["user-service"], "owner": "shop",
            "to": {"service": "order-service", "methods": ["GET"], "paths": ["/api/*"], "ports": [50051]},
            "action": "allow", "expires": "2027-03-31"}]}"#,
    )
    .unwrap();
    let written = RuleConfig::new("users-read-orders", &["user-service"], "order-service")
        .with_methods(&["GET"])
        .with_paths(&["/api/*"])
        .with_ports(&[50051])
        .with_owner("shop")
        .with_expires("2027-03-31");
    assert_eq!(read, PolicyConfig::default().with_rule(written));
    Policy::build(&read, &TrustDomain::parse("example.org").unwrap()).unwrap();
    let again: PolicyConfig = policy(&serde_json::to_string(&read).unwrap()).unwrap();
    assert_eq!(again, read);
}

#[test]
fn what_is_left_out_has_its_default() {
    let read =
        policy(r#"{"rules": [{"name": "r", "from": ["*"], "to": {"service": "*"}}]}"#).unwrap();
    assert_eq!(read.default, DefaultAction::Deny);
    assert_eq!(read.rules.first().unwrap().action, Action::Allow);
    assert_eq!(
        serde_json::from_str::<Limits>("{}").unwrap(),
        Limits::default()
    );
}

// threat 53
#[test]
fn what_is_misspelt_is_refused() {
    for json in [
        r#"{"rule": []}"#,
        r#"{"default": "allow"}"#,
        r#"{"rules": [{"name": "r", "to": {"service": "*"}}]}"#,
        r#"{"rules": [{"name": "r", "from": ["*"]}]}"#,
        r#"{"rules": [{"name": "r", "from": ["*"], "to": {}}]}"#,
        r#"{"rules": [{"name": "r", "from": ["*"], "to": {"service": "*", "path": ["/x"]}}]}"#,
        r#"{"rules": [{"name": "r", "from": ["*"], "to": {"service": "*"}, "action": "ALLOW"}]}"#,
        r#"{"rules": [{"name": "r", "from": ["*"], "to": {"service": "*"}, "where": "true"}]}"#,
    ] {
        policy(json).unwrap_err();
    }
    serde_json::from_str::<Limits>(r#"{"max_header": 1}"#).unwrap_err();
}

#[test]
fn identities_are_text() {
    let id: SpiffeId = serde_json::from_str(r#""spiffe://example.org/a""#).unwrap();
    assert_eq!(
        serde_json::to_string(&id).unwrap(),
        r#""spiffe://example.org/a""#
    );
    assert_eq!(
        serde_json::to_string(id.trust_domain()).unwrap(),
        r#""example.org""#
    );
    serde_json::from_str::<SpiffeId>(r#""spiffe://Example.org/a""#).unwrap_err();
    serde_json::from_str::<TrustDomain>(r#""example.org:80""#).unwrap_err();
}
