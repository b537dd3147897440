//! What a decision leaves behind: an id for the caller, and everything for whoever runs the service.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::collections::HashSet;
use std::fs;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::client::Answer;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::Process;
use support::process::wait_until;
use support::tools::python;
use support::tools::tool;

mod support;

with_both_encryptions!(
    a_denied_caller_learns_the_id_of_the_decision_and_nothing_else,
    a_shadow_policy_decides_nothing_and_shows_what_it_would,
);

/// The records of calls in a node's audit log.
fn records(node: &Node) -> Vec<Value> {
    let log = fs::read_to_string(node.dir().join("logs/mesh-audit.log")).unwrap();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &Value| record["event"] == "message")
        .collect()
}

#[track_caller]
fn id_of(answer: &Answer) -> String {
    let id = answer.header("x-mesh-decision-id").unwrap().to_owned();
    assert_eq!(id.len(), 26, "{id}");
    id
}

fn a_denied_caller_learns_the_id_of_the_decision_and_nothing_else(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port).configure(json!({ "policy": { "rules": [
        { "name": "everything-else", "from": ["user-service"], "to": { "service": "order-service" }, "action": "allow" },
        {
            "name": "vault-is-closed", "from": ["*"], "action": "deny",
            "to": { "service": "order-service", "paths": ["/vault/*"] },
        },
    ] } }));
    mesh.start();
    mesh.call("/open", &[]).expect(200);
    let denied = mesh.call("/vault/gold", &[]).expect(403);
    let id = id_of(&denied);
    let message = format!(
        "not allowed; decision {id}; whoever runs order-service can explain it with: mesh-node explain {id}"
    );
    assert_eq!(denied.error(), Some("denied"));
    assert_eq!(denied.json()["error"]["message"], message);
    let shown = format!("{}{}", denied.head, denied.text());
    for told in [
        "vault",
        "gold",
        "closed",
        "everything",
        "user-service",
        "GET",
    ] {
        assert!(!shown.contains(told), "{told}: {shown}");
    }

    // The record names all of it, for an allowed call too.
    let records = records(&mesh.order);
    let ids: HashSet<_> = records
        .iter()
        .map(|record| record["decision"].as_str().unwrap())
        .collect();
    assert_eq!((records.len(), ids.len()), (2, 2), "{records:?}");
    assert_eq!(records[0]["verdict"], "allow");
    assert_eq!(records[0]["rule"], "everything-else");
    assert_eq!(records[1]["decision"], *id);
    assert_eq!(records[1]["verdict"], "deny");
    assert_eq!(records[1]["rule"], "vault-is-closed");
    assert_eq!(records[1]["peer"], "spiffe://example.org/user-service");
    assert_eq!(records[1]["path"], "/vault/gold");
    // So do metric and log.
    let series = "mesh_auth_policy_decisions_total{verdict=\"deny\",rule=\"vault-is-closed\"}";
    assert_eq!(mesh.order.metric(series), Some(1.0));
    wait_until("the log names the rule", || {
        let log = mesh.order.log();
        log.lines().any(|line| {
            line.contains("call denied") && line.contains(&id) && line.contains("vault-is-closed")
        })
    });
    // And whoever is on the machine can ask why.
    let page = mesh
        .order
        .admin(&format!("/decisions/{id}"))
        .expect(200)
        .json();
    assert_eq!(page["rule"], "vault-is-closed");
    assert_eq!(page["facts"]["path"], "/vault/gold");
    assert_eq!(page["policy"], "the one that decided");
    let explanation = page["explanation"].to_string();
    assert!(explanation.contains("vault-is-closed"), "{explanation}");
    let change = &page["explanation"]["change"]["summary"];
    assert!(change.to_string().contains("vault-is-closed"), "{change}");
    // So can whoever has the record.
    let mut explain = std::process::Command::new(env!("CARGO_BIN_EXE_mesh-node"));
    explain
        .args(["explain", &id])
        .current_dir(mesh.order.dir())
        .env("JWT_SECRET", &mesh.order.secret);
    let explained = explain.output().unwrap();
    let said = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.status.success(), "{explained:?}");
    assert!(said.contains("deny by vault-is-closed"), "{said}");
    let listed = mesh.order.admin("/decisions").expect(200).json();
    assert_eq!(listed[0]["decision"], *id);
    mesh.order
        .admin("/decisions/01ARYZ6S410000000000000000")
        .expect(404);
}

fn a_shadow_policy_decides_nothing_and_shows_what_it_would(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let shadow = "rules:\n  - name: only-orders\n    from: [user-service]\n    \
                  to: { service: order-service, paths: [\"/orders/*\"] }\n    action: allow\n";
    fs::write(mesh.order.dir().join("next.yaml"), shadow).unwrap();
    mesh.order.serve(app.port).configure(json!({ "policy": {
        "shadow_file": "next.yaml",
        "rules": [ {
            "name": "users", "from": ["user-service"], "action": "allow",
            "to": { "service": "order-service", "methods": ["GET"] },
        } ],
    } }));
    mesh.start();
    mesh.call("/orders/7", &[]).expect(200);
    mesh.call("/other", &[]).expect(200);
    let denied = mesh.call("/orders/7", &["-d", "x"]).expect(403);

    let count = |live: &str, shadow: &str, rule: &str| {
        let series = format!(
            "mesh_auth_shadow_decisions_total{{live=\"{live}\",shadow=\"{shadow}\",rule=\"{rule}\"}}"
        );
        mesh.order.metric(&series)
    };
    assert_eq!(count("allow", "allow", "only-orders"), Some(1.0));
    assert_eq!(count("allow", "deny", "default"), Some(1.0));
    assert_eq!(count("deny", "allow", "only-orders"), Some(1.0));
    let records = records(&mesh.order);
    let shadows: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record["shadow_verdict"].as_str(),
                record["shadow_rule"].as_str(),
            )
        })
        .collect();
    let expected = [
        (Some("allow"), Some("only-orders")),
        (Some("deny"), None),
        (Some("allow"), Some("only-orders")),
    ];
    assert_eq!(shadows, expected, "{records:?}");
    let page = format!("/decisions/{}", id_of(&denied));
    let page = mesh.order.admin(&page).expect(200).json();
    assert_eq!(page["shadow"]["verdict"], "allow");
    wait_until("the log tells of both disagreements", || {
        mesh.order
            .log()
            .matches("the shadow policy would decide otherwise")
            .count()
            == 2
    });
}

/// Under load each request is decided by one policy and its own shadow, however often both change.
#[test]
fn no_request_sees_half_of_a_reload_and_none_fails() {
    // threat 64
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let configure = |node: &mut Node, turn: &str| {
        node.config["policy"] = json!({
            "shadow_file": format!("{turn}.yaml"),
            "rules": [ {
                "name": turn, "from": ["user-service"], "action": "allow",
                "to": { "service": "order-service" },
            } ],
        });
    };
    for turn in ["odd", "even"] {
        let shadow = format!(
            "rules:\n  - name: shadow-{turn}\n    from: [user-service]\n    to: {{ service: order-service }}\n    \
             action: allow\n"
        );
        fs::write(mesh.order.dir().join(format!("{turn}.yaml")), shadow).unwrap();
    }
    mesh.order.serve(app.port);
    configure(&mut mesh.order, "odd");
    mesh.start();
    let port = mesh.user.outbound.to_string();
    let mut command = python(
        &tool("python").unwrap(),
        "load.py",
        &[&port, "4", "GET,POST"],
    );
    let mut load = Process::start(&mut command, mesh.path(), "load");
    let answered = |load: &Process| load.out().matches(" 200 ").count();
    for turn in 2..10_u8 {
        let before = answered(&load);
        configure(&mut mesh.order, if turn % 2 == 0 { "even" } else { "odd" });
        let new = mesh.order.dir().join("mesh.yaml.new");
        fs::write(&new, format!("{:#}", mesh.order.config)).unwrap();
        fs::rename(new, mesh.order.dir().join("mesh.yaml")).unwrap();
        wait_until("the policy is taken over", || {
            mesh.order.metric("mesh_policy_generation") == Some(f64::from(turn))
        });
        wait_until("requests go on", || answered(&load) > before + 20);
    }
    load.terminate();
    assert!(
        load.wait(std::time::Duration::from_secs(40)).success(),
        "{}",
        load.err()
    );
    let failed: Vec<_> = load
        .out()
        .lines()
        .filter(|line| *line != "done" && !line.contains(" 200 "))
        .map(str::to_owned)
        .collect();
    assert_eq!(failed, Vec::<String>::new());
    let records = records(&mesh.order);
    assert!(records.len() > 160, "{}", records.len());
    let mut seen = HashSet::new();
    for record in records {
        let (rule, shadow) = (
            record["rule"].as_str().unwrap(),
            record["shadow_rule"].as_str().unwrap(),
        );
        assert_eq!(shadow, format!("shadow-{rule}"));
        seen.insert(rule.to_owned());
    }
    assert_eq!(seen.len(), 2);
}
