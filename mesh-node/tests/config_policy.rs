//! A policy in files of its own.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::error::Error;
use std::fs;

use mesh_node::config::ConfigError;
use mesh_node::config::Document;
use mesh_node::config::Environment;
use mesh_node::config::NodeConfig;
use mesh_node::config::PolicyConfig;
use mesh_node::config::PolicyDefault;
use tempfile::TempDir;

const BASE: &str = "\
service: { id: user-service }
identity: { trust_domain: example.org, source: builtin, ca_dir: ca }
";

const RULES: &str = "\
default: audit
rules:
  - name: users-read
    from: [user-service]
    to: { service: order-service }
    action: allow
";

/// A folder with `mesh.yaml`, whose policy section is `policy`, and with the given files beside it.
fn folder(policy: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{BASE}policy: {policy}\n");
    for (name, text) in files.iter().chain([&("mesh.yaml", text.as_str())]) {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(folder: &TempDir) -> Result<NodeConfig, ConfigError> {
    NodeConfig::load(&folder.path().join("mesh.yaml"), &Environment::new())
}

/// What is wrong, with the names of files as they stand in the folder.
#[track_caller]
fn refused(policy: &str, files: &[(&str, &str)]) -> String {
    let folder = folder(policy, files);
    let error = load(&folder).unwrap_err();
    let cause = error
        .source()
        .map_or(String::new(), |cause| format!(": {cause}"));
    format!("{error}{cause}").replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn intentions_stay_beside_rules_in_a_file() {
    let consul = "consul: { url: \"http://127.0.0.1:8500\" }";
    let policy = format!("{{ rules_file: policy.yaml, {consul} }}");
    let folder = folder(&policy, &[("policy.yaml", RULES)]);
    let policy = load(&folder).unwrap().policy;
    assert!(policy.consul.is_some() && policy.rules.len() == 1);

    let inside = format!("{RULES}{consul}\n");
    for key in ["rules_file", "shadow_file"] {
        let named = format!("{{ {key}: policy.yaml }}");
        let error = refused(&named, &[("policy.yaml", &inside)]);
        assert!(
            error.starts_with("policy.yaml:7:9: consul: has no place"),
            "{error}"
        );
    }
}

#[test]
fn a_policy_may_stand_in_files_of_its_own() {
    let folder = folder(
        "{ rules_file: policy.yaml, shadow_file: next.yaml }",
        &[("policy.yaml", RULES), ("next.yaml", "rules: []")],
    );
    let policy = load(&folder).unwrap().policy;
    assert_eq!(policy.default, PolicyDefault::Audit);
    assert_eq!(policy.rules[0].name, "users-read");
    assert_eq!(policy.rules_file, Some(folder.path().join("policy.yaml")));
    assert_eq!(policy.shadow_file, Some(folder.path().join("next.yaml")));
    assert_eq!(policy.shadow, Some(Box::default()));
    let alone = PolicyConfig::load(&folder.path().join("policy.yaml"), &Environment::new());
    assert_eq!(alone.unwrap().rules, policy.rules);
}

#[test]
fn an_error_in_a_policy_file_says_where_in_it() {
    // threat 53
    let broken = RULES.replace("action", "actoin");
    let refused_in = |policy: &str, text: &str| refused(policy, &[("policy.yaml", text)]);
    for key in ["rules_file", "shadow_file"] {
        let policy = format!("{{ {key}: policy.yaml }}");
        let unknown = refused_in(&policy, &broken);
        let expected = "policy.yaml:6:5: rules[0].actoin: unknown key; did you mean \"action\"?";
        assert!(unknown.starts_with(expected), "{unknown}");
        assert!(refused_in(&policy, "rules: [").starts_with("policy.yaml:1:"));
        let nested = refused_in(&policy, "rules_file: other.yaml");
        assert!(
            nested.starts_with("policy.yaml:1:13: rules_file: has no place"),
            "{nested}"
        );
    }
    let folder = folder("{ rules_file: policy.yaml }", &[("policy.yaml", RULES)]);
    let document = Document::read(&folder.path().join("mesh.yaml"), &Environment::new()).unwrap();
    let place = document.error("policy.rules[0].from", "x").to_string();
    assert!(
        place.ends_with("policy.yaml:4:11: rules[0].from: x"),
        "{place}"
    );
    let place = document.error("policy.rules_file", "x").to_string();
    assert!(
        place.ends_with("mesh.yaml:3:23: policy.rules_file: x"),
        "{place}"
    );
}

#[test]
fn a_policy_file_that_is_not_there_is_an_error() {
    // threat 54
    for key in ["rules_file", "shadow_file"] {
        let error = refused(&format!("{{ {key}: none.yaml }}"), &[]);
        let expected = format!("policy.{key}: could not read none.yaml: No such file");
        assert!(
            error.starts_with("mesh.yaml:3:") && error.contains(&expected),
            "{error}"
        );
    }
}

#[test]
fn rules_stand_in_one_place() {
    for beside in ["default: deny", "rules: []"] {
        let error = refused(
            &format!("{{ rules_file: policy.yaml, {beside} }}"),
            &[("policy.yaml", RULES)],
        );
        assert!(
            error.contains("and rules_file exclude each other"),
            "{error}"
        );
    }
}
