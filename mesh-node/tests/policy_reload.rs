//! A policy that changes while a node runs: it counts whole, or the last good one stays and the node says so.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::path::Path;

use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::Node;
use support::mesh::try_cli;
use support::process::wait_until;

mod support;

/// A policy file that lets the user service call the paths.
fn rules(name: &str, paths: &str) -> String {
    format!(
        "default: deny\nrules:\n  - name: {name}\n    from: [user-service]\n    \
         to: {{ service: order-service, paths: [\"{paths}\"] }}\n    action: allow\n"
    )
}

/// Replaces a file as careful programs do: whole, by renaming.
fn put(node: &Node, name: &str, text: &str) {
    let new = node.dir().join(format!("{name}.new"));
    fs::write(&new, text).unwrap();
    fs::rename(new, node.dir().join(name)).unwrap();
}

fn failures(node: &Node) -> f64 {
    node.metric("mesh_policy_reload_failures_total").unwrap()
}

#[track_caller]
fn wait_for_generation(node: &Node, generation: f64) {
    wait_until("the policy is taken over", || {
        node.metric("mesh_policy_generation") == Some(generation)
    });
}

#[track_caller]
fn wait_for_failure(node: &Node, before: f64) {
    wait_until("the policy is refused", || failures(node) > before);
}

/// Two nodes, of which the called one has its rules in `policy.yaml`.
fn mesh_with_rules() -> Option<(Mesh, App)> {
    let mut mesh = Mesh::new("mtls");
    let app = App::start(mesh.path())?;
    mesh.order.serve(app.port);
    mesh.order.config["policy"] = json!({ "rules_file": "policy.yaml" });
    put(&mesh.order, "policy.yaml", &rules("first", "/first/*"));
    mesh.start();
    Some((mesh, app))
}

#[test]
fn a_changed_policy_counts_without_a_restart() {
    let Some((mut mesh, _app)) = mesh_with_rules() else {
        return;
    };
    assert!(mesh.order.metric("mesh_policy_loaded_timestamp_seconds") > Some(1e9));
    mesh.call("/first/x", &[]).expect(200);
    mesh.call("/second/x", &[]).expect(403);

    put(&mesh.order, "policy.yaml", &rules("second", "/second/*"));
    wait_for_generation(&mesh.order, 2.0);
    mesh.call("/first/x", &[]).expect(403);
    mesh.call("/second/x", &[]).expect(200);
    let of_the_first = "mesh_auth_policy_decisions_total{verdict=\"allow\",rule=\"first\"}";
    assert_eq!(mesh.order.metric(of_the_first), None);

    // Asked to, it looks again, and what says the same is no new policy.
    mesh.order.process().signal("-HUP");
    put(&mesh.order, "policy.yaml", &rules("third", "/third/*"));
    mesh.order.process().signal("-HUP");
    wait_for_generation(&mesh.order, 3.0);
    assert!(failures(&mesh.order) < 1.0);
    let replaced = mesh.order.log().matches("policy replaced").count();
    assert_eq!(replaced, 2);
}

#[test]
fn a_broken_policy_is_refused_whole_and_the_node_says_so() {
    // threat 53
    // threat 54
    let Some((mut mesh, _app)) = mesh_with_rules() else {
        return;
    };
    let good = rules("first", "/first/*");
    let half = good.get(..good.len() / 2).unwrap().to_owned();
    let broken: [(&str, Option<String>, &str); 5] = [
        ("no yaml", Some("rules: [".to_owned()), "policy.yaml:1:"),
        ("half written", Some(half), "policy.yaml:"),
        (
            "a key that is not known",
            Some(good.replace("action", "actoin")),
            "policy.yaml:6:5: rules[0].actoin",
        ),
        (
            "a rule that can't be enforced",
            Some(good.replace("/first/*", "/fir*t")),
            "policy.yaml:3:5: rules[0]: is not a policy that can be enforced",
        ),
        ("gone", None, "policy.rules_file: could not read"),
    ];
    for (what, text, said) in broken {
        let before = failures(&mesh.order);
        match text {
            Some(text) => put(&mesh.order, "policy.yaml", &text),
            None => fs::remove_file(mesh.order.dir().join("policy.yaml")).unwrap(),
        }
        wait_for_failure(&mesh.order, before);
        let health = mesh.order.admin("/health").expect(200).json();
        assert_eq!(health["status"], "degraded", "{what}");
        let message = health["parts"]["policy"]["message"].as_str().unwrap();
        assert!(message.contains(said), "{what}: {message}");
        assert!(message.contains("the last good policy stays"), "{message}");
        mesh.call("/first/x", &[]).expect(200);
        mesh.call("/second/x", &[]).expect(403);
        mesh.order.admin("/health/ready").expect(200);

        put(&mesh.order, "policy.yaml", &good);
        wait_until("all is well again", || {
            mesh.order.admin("/health").json()["status"] == "ok"
        });
    }
    // Refused policies were no generations.
    assert_eq!(mesh.order.metric("mesh_policy_generation"), Some(1.0));
    assert!(
        mesh.order
            .log()
            .contains("new policy refused; the last good one stays")
    );
    mesh.order.stop();
    let recorded = fs::read_to_string(mesh.order.dir().join("logs/mesh-audit.log")).unwrap();
    assert!(
        recorded.matches("policy refused").count() >= 5,
        "{recorded}"
    );
}

#[test]
fn a_broken_policy_at_the_start_stops_the_start() {
    // threat 53
    // threat 54
    let mut mesh = Mesh::new("mtls");
    let node = &mut mesh.order;
    let with = |file: Option<&str>, node: &mut Node| {
        let path = node.dir().join("policy.yaml");
        match file {
            Some(text) => fs::write(path, text).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let run = node.program(&["run"]).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        (run.status.code(), said)
    };
    for key in ["rules_file", "shadow_file"] {
        node.config["policy"] = json!({ key: "policy.yaml" });
        let broken = rules("first", "/fir*t");
        let (code, said) = with(Some(&broken), node);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("policy.yaml:3:5: rules[0]: is not a policy"),
            "{said}"
        );
        let (code, said) = with(None, node);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("could not read") && said.contains("mesh.yaml:"),
            "{said}"
        );
    }
}

#[test]
fn of_a_changed_configuration_only_the_policy_is_taken_over() {
    let Some((mut mesh, _app)) = mesh_with_rules() else {
        return;
    };
    mesh.order.config["policy"] = json!({ "rules": [ {
        "name": "inline", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow",
    } ] });
    mesh.order
        .configure(json!({ "drain": { "timeout": "7s" } }));
    let text = format!("{:#}", mesh.order.config);
    put(&mesh.order, "mesh.yaml", &text);
    wait_for_generation(&mesh.order, 2.0);
    mesh.call("/anything", &[]).expect(200);
    let health = mesh.order.admin("/health").expect(200).json();
    assert_eq!(health["status"], "ok");
    assert_eq!(
        health["parts"]["configuration"],
        json!({ "level": "note", "message": "changed, and needs a restart: drain" })
    );
    // Another section that is wrong: nothing of the file counts.
    let wrong = text
        .replace("\"7s\"", "\"soon\"")
        .replace("inline", "other");
    put(&mesh.order, "mesh.yaml", &wrong);
    wait_for_failure(&mesh.order, 0.0);
    assert_eq!(mesh.order.metric("mesh_policy_generation"), Some(2.0));
}

#[test]
fn check_refuses_a_policy_that_cannot_be_enforced() {
    // threat 53
    let mesh = Mesh::new("mtls");
    let check = |rules: &str| {
        let folder = mesh.path().join("checked");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("policy.yaml"), rules).unwrap();
        let config = "service: { id: a }\nidentity: { trust_domain: example.org, source: builtin, ca_dir: ../ca }\n\
                      policy: { rules_file: policy.yaml, shadow_file: policy.yaml }\n";
        fs::write(folder.join("mesh.yaml"), config).unwrap();
        checked(&folder)
    };
    assert_eq!(check(&rules("first", "/first/*")).0, Some(0));
    let (code, said) = check(&rules("first", "/fir*t"));
    assert_eq!(code, Some(2));
    assert!(said.contains("policy.yaml:3:5: "), "{said}");
}

#[test]
fn a_strict_check_takes_a_warning_for_a_failure() {
    let mesh = Mesh::new("mtls");
    let config = "service: { id: a }\nidentity: { trust_domain: example.org, source: builtin, ca_dir: ca }\n";
    let code = |policy: &str, line: &str| {
        fs::write(mesh.path().join("mesh.yaml"), format!("{config}{policy}")).unwrap();
        try_cli(mesh.path(), line).status.code()
    };
    let audit = "policy: { default: audit }\n";
    assert_eq!(code(audit, "check -c mesh.yaml"), Some(0));
    assert_eq!(code(audit, "check --strict -c mesh.yaml"), Some(1));
    let output = try_cli(mesh.path(), "check --strict -c mesh.yaml");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("warning: policy.default is audit"), "{said}");
}

#[test]
fn check_says_what_is_doubtful_about_a_rule_and_on_which_line() {
    let mesh = Mesh::new("mtls");
    let base = "service: { id: a, listen: '0.0.0.0:5001', app: '127.0.0.1:1' }\n\
                identity: { trust_domain: example.org, source: builtin, ca_dir: ca }\npolicy:\n  rules:\n";
    let check = |rule: &str| {
        fs::write(
            mesh.path().join("mesh.yaml"),
            format!("{base}    - {rule}\n"),
        )
        .unwrap();
        let output = try_cli(mesh.path(), "check --strict -c mesh.yaml");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let narrow =
        "{ name: good, from: [b], to: { service: a, paths: [/x] }, action: allow, owner: team }";
    assert_eq!(check(narrow).0, Some(0), "{:?}", check(narrow));
    for (rule, words) in [
        (
            "{ name: wide, from: ['*'], to: { service: a, paths: [/x] }, action: allow }",
            "it allows every caller",
        ),
        (
            "{ name: old, from: [b], to: { service: a, paths: [/x] }, action: allow, expires: 2020-01-01 }",
            "ended",
        ),
        (
            "{ name: away, from: ['spiffe://other.org/b'], to: { service: a, paths: [/x] }, action: allow }",
            "other.org",
        ),
    ] {
        let (code, said) = check(rule);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("warning: mesh.yaml:5:7: ") && said.contains(words),
            "{said}"
        );
    }
    // What can't be enforced is an error.
    let port =
        "{ name: port, from: [b], to: { service: a, paths: [/x], ports: [7] }, action: allow }";
    let (code, said) = check(port);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("mesh.yaml:5:7: ") && said.contains("has no port 7"),
        "{said}"
    );
}

fn checked(folder: &Path) -> (Option<i32>, String) {
    let output = try_cli(folder, "check -c mesh.yaml");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}
