//! Consul's intentions as a part of the policy, with a real Consul.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::time::Duration;

use serde_json::json;

use support::app::App;
use support::consul::Consul;
use support::mesh::Mesh;
use support::process::free_port;
use support::process::holds_within;

mod support;

/// Two nodes, of which the called one takes intentions from Consul; a rule allows the call where `has_rule`.
fn started(has_rule: bool) -> Option<(Consul, Mesh, App)> {
    let mut mesh = Mesh::new("mtls");
    let consul = Consul::start(mesh.path())?;
    let app = App::start(mesh.path())?;
    mesh.order.serve(app.port);
    mesh.order
        .configure(json!({ "policy": { "consul": { "url": consul.url() } } }));
    if !has_rule {
        mesh.order.config["policy"]["rules"] = json!([]);
    }
    mesh.start();
    Some((consul, mesh, app))
}

/// Whether calls are answered with `status` within two seconds from now on.
fn turns_to(mesh: &Mesh, status: u16) -> bool {
    let limit = Duration::from_secs(2);
    holds_within(limit, || mesh.call("/api/orders", &[]).status == status)
}

fn intend(consul: &Consul, source: &str, destination: &str, action: &str) -> String {
    let intention =
        json!({ "SourceName": source, "DestinationName": destination, "Action": action });
    let made = consul.send("POST", "/v1/connect/intentions", &intention);
    made.json()["ID"].as_str().unwrap().to_owned()
}

fn withdraw(consul: &Consul, id: &str) {
    consul.send(
        "DELETE",
        &format!("/v1/connect/intentions/{id}"),
        &json!({}),
    );
}

#[test]
fn an_intention_denies_a_call_that_a_rule_allows_while_it_is_there() {
    let Some((consul, mesh, _app)) = started(true) else {
        return;
    };
    mesh.call("/api/orders", &[]).expect(200);
    let id = intend(&consul, "user-service", "order-service", "deny");
    assert!(turns_to(&mesh, 403), "{}", mesh.order.log());
    let rule = "rule=\"intention:user-service=>order-service\"";
    assert!(mesh.order.admin("/metrics").text().contains(rule));
    // One about another service changes nothing here.
    intend(&consul, "*", "payment-service", "allow");
    withdraw(&consul, &id);
    assert!(turns_to(&mesh, 200), "{}", mesh.order.log());
    let page = mesh.order.admin("/metrics").text();
    assert!(!page.contains(rule), "{page}");
}

#[test]
fn an_intention_allows_what_no_rule_does_and_the_closer_one_wins() {
    let Some((consul, mesh, app)) = started(false) else {
        return;
    };
    mesh.call("/api/orders", &[]).expect(403);
    intend(&consul, "user-service", "order-service", "allow");
    intend(&consul, "*", "*", "deny");
    assert!(turns_to(&mesh, 200), "{}", mesh.order.log());
    assert!(app.count("/api/orders") > 0);
}

#[test]
fn while_consul_is_away_the_last_intentions_stay_in_force() {
    let Some((mut consul, mesh, _app)) = started(true) else {
        return;
    };
    intend(&consul, "user-service", "order-service", "deny");
    assert!(turns_to(&mesh, 403));
    consul.kill();
    let is_told = holds_within(Duration::from_secs(20), || {
        mesh.order
            .admin("/health")
            .text()
            .contains("the last good intentions of consul stay")
    });
    assert!(is_told, "{}", mesh.order.admin("/health").text());
    assert!(mesh.order.metric("mesh_policy_intention_failures_total") > Some(0.0));
    mesh.call("/api/orders", &[]).expect(403);
    // One that comes back with nothing says so, and is believed.
    let Some(_back) = Consul::start_on(consul.http, None, mesh.path()) else {
        return;
    };
    let limit = Duration::from_secs(20);
    let is_allowed = holds_within(limit, || mesh.call("/api/orders", &[]).status == 200);
    assert!(is_allowed, "{}", mesh.order.log());
    assert!(!mesh.order.admin("/health").text().contains("intentions"));
}

#[test]
fn without_consul_or_the_right_to_read_intentions_a_node_does_not_start() {
    let mut mesh = Mesh::new("mtls");
    let Some(consul) = Consul::start_with_acls(mesh.path()) else {
        return;
    };
    mesh.order
        .configure(json!({ "identity": { "startup_timeout": "2s" } }));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for (url, expected) in [
        (nobody, "gives no answer to"),
        // Asked for its list without a token Consul answers 200 and an empty list, which must not count.
        (consul.url(), "with 403: Permission denied"),
    ] {
        mesh.order
            .configure(json!({ "policy": { "consul": { "url": url } } }));
        mesh.order.spawn();
        let status = mesh.order.process().wait(Duration::from_secs(20));
        assert!(!status.success());
        let said = mesh.order.log();
        assert!(said.contains("policy.consul gives no intentions"), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
