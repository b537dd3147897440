//! Consul's built-in proxy (`consul connect proxy`) at the other end of mutual TLS, in both directions. It carries bytes and
//! knows no HTTP, but agrees on `h2` by ALPN with whoever offers it.

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::client::Answer;
use support::client::curl;
use support::consul::Consul;
use support::envoy::Envoy;
use support::mesh::Mesh;

mod support;

/// Consul, two nodes that take their identities from it, and an application.
fn prepared() -> Option<(Consul, Mesh, App)> {
    let mut mesh = Mesh::new("mtls");
    let consul = Consul::start(mesh.path())?;
    let app = App::start(mesh.path())?;
    for node in [&mut mesh.user, &mut mesh.order] {
        node.config["identity"] = json!({ "source": "consul", "consul": { "url": consul.url() } });
        node.config["auth"] = json!({});
    }
    mesh.order.serve(app.port);
    Some((consul, mesh, app))
}

fn through(port: u16, target: &str, args: &[&str]) -> Answer {
    let url = format!("http://127.0.0.1:{port}{target}");
    let mut all = vec!["-H", "Host: order-service", "--max-time", "5", &url];
    all.extend(args);
    curl(&all)
}

#[test]
fn consuls_proxy_calls_a_service_behind_a_node() {
    let Some((consul, mut mesh, app)) = prepared() else {
        return;
    };
    mesh.order.configure(
        json!({ "security": { "alpn": "ignored" }, "policy": { "rules": [ {
            "name": "users-read", "from": ["user-service"],
            "to": { "service": "order-service", "paths": ["/api/*"] }, "action": "allow",
        } ] } }),
    );
    mesh.order.start();
    consul.register("order-service", mesh.order.inbound);
    let (user, _user_proxy) = consul.proxy_behind("user-service", "order-service");
    let (other, _other_proxy) = consul.proxy_behind("other-service", "order-service");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        through(user, "/api/orders", &[version]).expect(200);
        through(user, "/api/orders", &[version, "-d", "a body"]).expect(200);
        // Who calls is known by the certificate that Consul gave the proxy.
        let denied = through(user, "/admin", &[version]).expect(403);
        assert_eq!(denied.error(), Some("denied"));
        through(other, "/api/orders", &[version]).expect(403);
    }
    let id = format!(
        "spiffe://{}/ns/default/dc/dc1/svc/user-service",
        consul.trust_domain()
    );
    let caller = json!(["x-mesh-peer-id", id]);
    let seen = app.seen();
    assert_eq!(seen.len(), 4);
    for request in seen {
        let headers = request["headers"].as_array().unwrap();
        assert!(headers.contains(&caller), "{request}");
    }
}

// threat 1
#[test]
fn what_alpn_agreed_on_counts_unless_a_node_is_told_otherwise() {
    let Some((consul, mut mesh, app)) = prepared() else {
        return;
    };
    mesh.order.start();
    consul.register("order-service", mesh.order.inbound);
    let (user, _proxy) = consul.proxy_behind("user-service", "order-service");
    let refused = through(user, "/api/orders", &["--http1.1"]);
    assert_eq!(refused.status, 0, "{refused:?}");
    assert_eq!(app.seen(), Vec::<Value>::new());
    through(user, "/api/orders", &["--http2-prior-knowledge"]).expect(200);
}

#[test]
fn a_node_calls_a_service_behind_consuls_proxy() {
    let Some((consul, mut mesh, app)) = prepared() else {
        return;
    };
    // A node speaks HTTP/2 to its peers, the application of the tests does not.
    let Some(envoy) = Envoy::plain(app.port, mesh.path()) else {
        return;
    };
    let (order, _order_proxy) = consul.proxy_before("order-service", envoy.port);
    mesh.user.discover("order-service", &[order]);
    mesh.user.start();
    mesh.call("/api/orders", &[]).expect(200);
    mesh.call("/api/orders", &["-d", "a body"]).expect(200);
    assert_eq!(app.count("/api/orders"), 2);
}

// threat 48
#[test]
fn a_node_refuses_a_proxy_of_consul_that_is_not_the_expected_service() {
    let Some((consul, mut mesh, app)) = prepared() else {
        return;
    };
    let (payment, _payment_proxy) = consul.proxy_before("payment-service", app.port);
    mesh.user.discover("order-service", &[payment]);
    mesh.user.start();
    let refused = mesh.call("/api/orders", &[]).expect(502);
    assert_eq!(refused.error(), Some("upstream_failed"));
    assert!(
        refused.text().contains("/svc/payment-service"),
        "{}",
        refused.text()
    );
    assert_eq!(app.seen(), Vec::<Value>::new());
}
