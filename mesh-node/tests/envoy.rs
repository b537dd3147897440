//! Envoy at the other end of mutual TLS, in both directions: each side verifies the other's SPIFFE id by its own means.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::envoy::Envoy;
use support::envoy::Identity;
use support::mesh::Mesh;
use support::mesh::cli;

mod support;

const USER: &str = "spiffe://example.org/user-service";
const ORDER: &str = "spiffe://example.org/order-service";

/// Two nodes that know nothing but certificates, as Envoy does: no sessions, no tokens.
fn plain_mesh() -> Mesh {
    let mut mesh = Mesh::new("mtls");
    for node in [&mut mesh.user, &mut mesh.order] {
        node.config["auth"] = json!({});
    }
    mesh
}

fn envoy_as(mesh: &Mesh, service: &str) -> Identity {
    let node = if service == "user-service" {
        &mesh.user
    } else {
        &mesh.order
    };
    Identity::new(&node.dir().join("certs"), service, "example.org")
}

/// An authority of another trust domain, and a certificate of `service` there.
fn foreign(mesh: &Mesh, service: &str, trust_domain: &str) -> PathBuf {
    let dir = mesh.path().join("foreign");
    fs::create_dir(&dir).unwrap();
    cli(&dir, &format!("ca init --trust-domain {trust_domain}"));
    cli(&dir, &format!("ca issue {service}"));
    dir.join("certs")
}

#[test]
fn envoy_calls_a_service_behind_a_node() {
    let mut mesh = plain_mesh();
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port).configure(json!({ "policy": { "rules": [ {
        "name": "users-read", "from": ["user-service"],
        "to": { "service": "order-service", "methods": ["GET", "POST"], "paths": ["/api/*"] }, "action": "allow",
    } ] } }));
    mesh.order.start();
    for protocol in ["h2", "http/1.1"] {
        let identity = envoy_as(&mesh, "user-service");
        let Some(envoy) =
            Envoy::before(mesh.order.inbound, ORDER, protocol, &identity, mesh.path())
        else {
            return;
        };
        envoy.call("/api/orders", &[]).expect(200);
        envoy.call("/api/orders", &["-d", "a body"]).expect(200);
        // What is refused is refused by the caller's SPIFFE id and the rule, as with a node in Envoy's place.
        let denied = envoy.call("/admin", &[]).expect(403);
        assert_eq!(denied.error(), Some("denied"));
        let seen = app.seen().pop().unwrap();
        let caller = json!(["x-mesh-peer-id", USER]);
        assert!(
            seen["headers"].as_array().unwrap().contains(&caller),
            "{seen}"
        );
        // BoringSSL and this node agree on the post-quantum hybrid without being told to.
        assert_eq!(
            envoy.stat("ssl.curves.X25519MLKEM768"),
            envoy.stat("ssl.handshake")
        );
        assert!(envoy.stat("ssl.handshake") > 0);
    }
    assert_eq!(app.count("/admin"), 0);
}

#[test]
fn envoy_refuses_a_node_that_is_not_the_expected_one() {
    let mut mesh = plain_mesh();
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.order.start();
    let identity = envoy_as(&mesh, "user-service");
    let other = "spiffe://example.org/payment-service";
    let Some(envoy) = Envoy::before(mesh.order.inbound, other, "h2", &identity, mesh.path()) else {
        return;
    };
    envoy.call("/api/orders", &[]).expect(503);
    assert!(envoy.stat("ssl.fail_verify_san") > 0);
    assert_eq!(app.seen(), Vec::<Value>::new());
}

// threat 2
#[test]
fn a_node_refuses_an_envoy_of_another_trust_domain() {
    let mut mesh = plain_mesh();
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order
        .serve(app.port)
        .configure(json!({ "policy": { "rules": [
        { "name": "all", "from": ["*"], "to": { "service": "*" }, "action": "allow" },
    ] } }));
    mesh.order.start();
    // It trusts the mesh, and so does what it can to get in: as itself, and as one of ours.
    let roots = mesh.order.dir().join("certs/ca.crt");
    let mut refused = Some(0.0);
    for domain in ["other.org", "example.org"] {
        let certs = foreign(&mesh, "user-service", domain);
        let identity = Identity::new(&certs, "user-service", "example.org").trusting(&roots);
        let Some(envoy) = Envoy::before(mesh.order.inbound, ORDER, "h2", &identity, mesh.path())
        else {
            return;
        };
        envoy.call("/api/orders", &[]).expect(503);
        let now = mesh.order.metric("mesh_session_refused_total");
        assert!(now > refused, "{domain}: {now:?}");
        refused = now;
        fs::remove_dir_all(certs.parent().unwrap()).unwrap();
    }
    assert_eq!(app.seen(), Vec::<Value>::new());
}

#[test]
fn a_node_calls_a_service_behind_envoy() {
    let mut mesh = plain_mesh();
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let identity = envoy_as(&mesh, "order-service");
    let Some(envoy) = Envoy::behind(app.port, USER, &identity, mesh.path()) else {
        return;
    };
    mesh.user.discover("order-service", &[envoy.port]);
    mesh.user.start();
    mesh.call("/api/orders", &[]).expect(200);
    mesh.call("/api/orders", &["-d", "a body"]).expect(200);
    assert_eq!(app.count("/api/orders"), 2);
    assert_eq!(
        envoy.stat("ssl.curves.X25519MLKEM768"),
        envoy.stat("ssl.handshake")
    );
    assert!(envoy.stat("ssl.handshake") > 0);
}

// threat 48
#[test]
fn a_node_refuses_an_envoy_that_is_not_the_expected_service() {
    let mut mesh = plain_mesh();
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    // A service of the mesh, but not the one that is called.
    let identity = envoy_as(&mesh, "user-service");
    let Some(envoy) = Envoy::behind(app.port, USER, &identity, mesh.path()) else {
        return;
    };
    mesh.user.discover("order-service", &[envoy.port]);
    mesh.user.start();
    let refused = mesh.call("/api/orders", &[]).expect(502);
    assert_eq!(refused.error(), Some("upstream_failed"));
    assert!(refused.text().contains(USER), "{}", refused.text());
    assert_eq!(app.seen(), Vec::<Value>::new());
}

#[test]
fn envoy_refuses_a_node_that_is_not_the_expected_caller() {
    let mut mesh = plain_mesh();
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let identity = envoy_as(&mesh, "order-service");
    let other = "spiffe://example.org/payment-service";
    let Some(envoy) = Envoy::behind(app.port, other, &identity, mesh.path()) else {
        return;
    };
    mesh.user.discover("order-service", &[envoy.port]);
    mesh.user.start();
    let refused = mesh.call("/api/orders", &[]).expect(502);
    assert_eq!(refused.error(), Some("upstream_failed"));
    assert!(envoy.stat("ssl.fail_verify_san") > 0);
    assert_eq!(app.seen(), Vec::<Value>::new());
}
