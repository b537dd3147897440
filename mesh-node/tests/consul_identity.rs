//! Consul's Connect CA as the source of identity, with a real Consul.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::consul::Consul;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::free_port;
use support::process::holds_within;

mod support;

/// Two nodes whose identities are Consul's.
fn started(encryption: &str) -> Option<(Consul, Mesh, App)> {
    let mut mesh = Mesh::new(encryption);
    let consul = Consul::start(mesh.path())?;
    let app = App::start(mesh.path())?;
    for node in [&mut mesh.user, &mut mesh.order] {
        from_consul(node, &json!({ "url": consul.url() }));
    }
    mesh.order.serve(app.port);
    mesh.start();
    Some((consul, mesh, app))
}

fn from_consul(node: &mut Node, consul: &Value) {
    node.config["identity"] =
        json!({ "source": "consul", "consul": consul, "startup_timeout": "10s" });
}

/// Starts a node that must not come up, and gives what it says.
fn stops(node: &mut Node) -> String {
    node.spawn();
    let status = node.process().wait(Duration::from_secs(20));
    assert!(!status.success());
    node.log()
}

with_both_encryptions!(names_of_services_are_those_of_consul);

fn names_of_services_are_those_of_consul(encryption: &str) {
    let Some((consul, mesh, app)) = started(encryption) else {
        return;
    };
    // The rule says `from: [user-service]`, the endpoint `id: order-service`.
    mesh.call("/api/orders", &[]).expect(200);
    let id = format!(
        "spiffe://{}/ns/default/dc/dc1/svc/user-service",
        consul.trust_domain()
    );
    let seen = app.seen().pop().unwrap();
    let caller = json!(["x-mesh-peer-id", id]);
    assert!(
        seen["headers"].as_array().unwrap().contains(&caller),
        "{seen}"
    );
    // The metrics name services as Consul's users do.
    let page = mesh.order.admin("/metrics").text();
    assert!(page.contains("source_workload=\"user-service\",source_principal=\"spiffe://"));
}

#[test]
fn a_new_root_of_consul_is_taken_over_without_a_failed_call() {
    let Some((consul, mesh, _app)) = started("mtls") else {
        return;
    };
    mesh.call("/api/orders", &[]).expect(200);
    let replaced = |node: &Node| node.log().matches("identity replaced").count();
    consul.replace_root(&mesh.path().join("ca/ca.key"));
    // First both roots are trusted, then the agent renews each leaf within half a minute.
    let (mut calls, mut trusted) = (0, [false, false]);
    let all = holds_within(Duration::from_mins(1), || {
        mesh.call("/api/orders", &[]).expect(200);
        calls += 1;
        for (node, seen) in [&mesh.user, &mesh.order].into_iter().zip(&mut trusted) {
            *seen |= replaced(node) >= 1;
        }
        [&mesh.user, &mesh.order]
            .into_iter()
            .all(|node| replaced(node) >= 2)
    });
    assert!(all, "{}\n{}", mesh.user.log(), mesh.order.log());
    assert_eq!(trusted, [true, true]);
    mesh.call("/api/orders", &[]).expect(200);
    for node in [&mesh.user, &mesh.order] {
        assert!(!node.log().contains("refused"), "{}", node.log());
    }
    assert!(calls > 10, "{calls}");
}

#[test]
fn consul_may_go_away_and_one_that_lost_its_memory_changes_nothing() {
    let Some((mut consul, mesh, _app)) = started("mtls") else {
        return;
    };
    mesh.call("/api/orders", &[]).expect(200);
    consul.kill();
    let says = |node: &Node, what: &str| {
        let found = holds_within(Duration::from_secs(30), || node.log().contains(what));
        assert!(found, "{what}: {}", node.log());
    };
    says(&mesh.order, "gives no answer to /v1/");
    mesh.call("/api/orders", &[]).expect(200);
    // It comes back with a CA and a trust domain of its own.
    let Some(other) = Consul::start_on(consul.http, None, mesh.path()) else {
        return;
    };
    assert_ne!(other.trust_domain(), "");
    says(&mesh.order, "new identity refused");
    mesh.call("/api/orders", &[]).expect(200);
}

#[test]
fn without_consul_a_node_does_not_start_and_says_why() {
    let mut mesh = Mesh::new("mtls");
    let url = format!("http://127.0.0.1:{}", free_port());
    from_consul(&mut mesh.order, &json!({ "url": url }));
    mesh.order.config["identity"]["startup_timeout"] = json!("2s");
    let said = stops(&mut mesh.order);
    assert!(
        said.contains("identity.source consul gave no identity"),
        "{said}"
    );
    assert!(
        said.contains("/v1/agent/connect/ca/leaf/order-service"),
        "{said}"
    );
}

#[test]
fn a_trust_domain_that_is_not_that_of_consul_stops_the_start() {
    let mut mesh = Mesh::new("mtls");
    let Some(consul) = Consul::start(mesh.path()) else {
        return;
    };
    from_consul(&mut mesh.order, &json!({ "url": consul.url() }));
    mesh.order.config["identity"]["trust_domain"] = json!("example.org");
    let said = stops(&mut mesh.order);
    assert!(said.contains("leave it out"), "{said}");
    mesh.order.config["identity"]["trust_domain"] = json!(consul.trust_domain());
    mesh.order.start();
}

// threat 20
#[test]
fn with_acls_a_token_from_a_file_is_needed_and_shown_nowhere() {
    let mut mesh = Mesh::new("mtls");
    let Some(consul) = Consul::start_with_acls(mesh.path()) else {
        return;
    };
    from_consul(&mut mesh.order, &json!({ "url": consul.url() }));
    mesh.order.config["identity"]["startup_timeout"] = json!("2s");
    let said = stops(&mut mesh.order);
    assert!(said.contains("with 403: Permission denied"), "{said}");

    let token = consul.token("order", "service \"order-service\" { policy = \"write\" }");
    fs::write(mesh.order.dir().join("consul.token"), format!("{token}\n")).unwrap();
    mesh.order.config["identity"]["consul"]["token_file"] = json!("consul.token");
    mesh.order.start();
    let shown = [mesh.order.log(), mesh.order.admin("/config").text()].concat();
    assert!(shown.contains("consul.token"));
    assert!(!shown.contains(&token), "{shown}");
}

#[test]
fn a_rule_that_names_a_datacenter_is_refused_since_policies_see_none() {
    let mut mesh = Mesh::new("mtls");
    from_consul(&mut mesh.order, &json!({}));
    let id = "spiffe://u.consul/ns/default/dc/dc1/svc/web";
    mesh.order.configure(json!({ "policy": { "rules": [
        { "name": "web", "from": [id], "to": { "service": "order-service" }, "action": "allow" },
    ] } }));
    let output = mesh.order.program(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("policy.rules[0].from[0]"), "{said}");
    assert!(said.contains("write the service's name alone"), "{said}");
}
