//! Permissive mode: plaintext is taken, is nobody's, and is loud.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::client::Answer;
use support::client::curl;
use support::client::raw;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::wait_until;

mod support;

with_both_encryptions!(
    plaintext_is_taken_from_nobody_and_gets_what_nobody_may,
    a_strict_node_takes_no_plaintext_also_where_a_rule_is_about_anonymous_callers,
);

fn plain(node: &Node, path: &str, args: &[&str]) -> Answer {
    let url = format!("http://127.0.0.1:{}{path}", node.inbound);
    let mut all = vec![url.as_str(), "-H", "Host: order-service"];
    all.extend(args);
    curl(&all)
}

/// Rules for anonymous callers, and one for whoever has an identity.
fn rules() -> Value {
    json!([
        {
            "name": "anybody-reads", "from": ["anonymous"], "action": "allow",
            "to": { "service": "order-service", "methods": ["GET"], "paths": ["/open"] },
        },
        { "name": "workloads", "from": ["*"], "to": { "service": "order-service" }, "action": "allow" },
    ])
}

fn plaintext_is_taken_from_nobody_and_gets_what_nobody_may(encryption: &str) {
    // threat 9
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port).configure(json!({
        "security": { "mode": "permissive" },
        "policy": { "rules": rules() },
    }));
    mesh.start();
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        plain(&mesh.order, "/open", &[protocol]).expect(200);
        let denied = plain(&mesh.order, "/closed", &[protocol]).expect(403);
        assert!(denied.header("x-mesh-decision-id").is_some());
        // Whatever it claims, it stays nobody.
        let claims = [
            protocol,
            "-H",
            "X-Mesh-Peer-Id: spiffe://example.org/user-service",
            "-H",
            "X-SPIFFE-ID: spiffe://example.org/user-service",
            "-H",
            "X-Forwarded-Client-Cert: URI=spiffe://example.org/user-service",
        ];
        plain(&mesh.order, "/closed", &claims).expect(403);
        plain(&mesh.order, "/open", &claims).expect(200);
    }
    let seen = Value::from(app.seen()).to_string();
    assert!(!seen.contains("spiffe:"), "{seen}");
    // What is no request gets no further than anywhere else.
    let broken = raw(
        mesh.order.inbound,
        b"GET /open HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    );
    assert!(
        broken.starts_with("HTTP/1.1 400") && broken.contains("connection: close"),
        "{broken}"
    );
    // Other nodes are served as ever.
    mesh.call("/closed", &[]).expect(200);

    assert_eq!(mesh.order.metric("mesh_permissive"), Some(1.0));
    assert_eq!(
        mesh.order.metric("mesh_plaintext_requests_total"),
        Some(9.0)
    );
    let metrics = mesh.order.admin("/metrics").expect(200).text();
    let of_nobody = |line: &&str| {
        line.starts_with("istio_requests_total")
            && line.contains("connection_security_policy=\"none\"")
    };
    assert!(metrics.lines().any(|line| of_nobody(&line)), "{metrics}");
    let health = mesh.order.admin("/health").expect(200).json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["parts"]["security"]["level"], "note");
    wait_until("the log warns", || {
        mesh.order
            .log()
            .contains("plaintext is taken from whoever reaches")
    });
    let audit = fs::read_to_string(mesh.order.dir().join("logs/mesh-audit.log")).unwrap();
    assert!(
        audit.contains("plaintext is taken") && audit.contains("\"verdict\":\"plaintext\""),
        "{audit}"
    );
    let check = mesh.order.program(&["check"]).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(
        said.contains("warning: security.mode is permissive"),
        "{said}"
    );
}

fn a_strict_node_takes_no_plaintext_also_where_a_rule_is_about_anonymous_callers(encryption: &str) {
    // threat 1
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order
        .serve(app.port)
        .configure(json!({ "policy": { "rules": rules() } }));
    mesh.start();
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = plain(&mesh.order, "/open", &[protocol]);
        assert_eq!(answer.status, 0, "{answer:?}");
    }
    assert_eq!(app.seen(), Vec::<Value>::new());
    assert_eq!(mesh.order.metric("mesh_permissive"), Some(0.0));
    assert!(mesh.order.metric("mesh_session_refused_total") >= Some(2.0));
    // Wider rules about anonymous callers are for permissive nodes alone.
    mesh.order.configure(json!({ "policy": { "rules": [ {
        "name": "wide", "from": ["anonymous"], "to": { "service": "order-service" }, "action": "allow",
    } ] } }));
    let check = mesh.order.program(&["check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    mesh.order
        .configure(json!({ "security": { "mode": "permissive" } }));
    let check = mesh.order.program(&["check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
}
