//! Nodes of two trust domains, each with roots of its own.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::net::TcpStream;

use mesh_auth::bundle::Bundle;
use mesh_auth::spiffe::TrustDomain;
use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::cli;
use support::process::free_port;
use support::process::wait_until;

mod support;

with_both_encryptions!(
    a_caller_of_a_federated_domain_is_known_by_its_own_name,
    a_caller_of_an_alias_counts_as_one_of_ours,
);

/// `order-service` of `example.org`, and `user-service` of `partner.org`; nothing runs yet.
fn two_domains(encryption: &str) -> Option<(Mesh, App)> {
    let mut mesh = Mesh::new(encryption);
    let app = App::start(mesh.path())?;
    cli(
        mesh.path(),
        "ca init --trust-domain partner.org --dir partner",
    );
    cli(
        mesh.path(),
        "ca issue user-service --dir partner --out user/certs --lifetime 1h",
    );
    let roots = |of: &str| fs::read_to_string(mesh.path().join(of).join("ca.crt")).unwrap();
    fs::write(mesh.order.dir().join("partner.pem"), roots("partner")).unwrap();
    fs::write(mesh.user.dir().join("example.pem"), roots("ca")).unwrap();
    for node in [&mut mesh.order, &mut mesh.user] {
        node.config["auth"] = json!({});
    }
    mesh.order.serve(app.port).configure(json!({
        "identity": { "federation": [ { "trust_domain": "partner.org", "bundle_file": "partner.pem" } ] },
    }));
    let port = mesh.order.inbound;
    mesh.user.configure(json!({
        "identity": {
            "trust_domain": "partner.org",
            "federation": [ { "trust_domain": "example.org", "bundle_file": "example.pem" } ],
        },
        "discovery": { "sources": [ { "mode": "static", "services": [ {
            "id": "order-service", "host": "127.0.0.1", "port": port,
            "spiffe_id": "spiffe://example.org/order-service",
        } ] } ] },
        "resilience": { "retry": { "max_attempts": 1 }, "circuit_breaker": { "threshold": 100_000 } },
    }));
    Some((mesh, app))
}

fn allow(from: &str) -> serde_json::Value {
    json!({ "policy": { "rules": [
        { "name": "users", "from": [from], "to": { "service": "order-service" }, "action": "allow" },
    ] } })
}

fn a_caller_of_a_federated_domain_is_known_by_its_own_name(encryption: &str) {
    // threat 2
    let Some((mut mesh, app)) = two_domains(encryption) else {
        return;
    };
    mesh.order
        .configure(allow("spiffe://partner.org/user-service"));
    mesh.start();
    mesh.call("/api/first", &[]).expect(200);

    // Its bundle is replaced by another one's while the node runs: what it vouched for is over.
    let bundle = mesh.order.dir().join("partner.pem");
    let good = fs::read_to_string(&bundle).unwrap();
    cli(
        mesh.path(),
        "ca init --trust-domain partner.org --dir stranger",
    );
    fs::copy(mesh.path().join("stranger/ca.crt"), &bundle).unwrap();
    wait_until("calls are refused", || {
        mesh.call("/api/refused", &[]).status != 200
    });
    let before = app.count("refused");
    mesh.call("/api/refused", &[]);
    assert_eq!(app.count("refused"), before);

    // A file that is no bundle changes nothing.
    let refused = || mesh.order.metric("mesh_identity_refused_total");
    let counted = refused();
    fs::write(&bundle, "no bundle").unwrap();
    wait_until("it is refused", || refused() > counted);

    // The same roots again, as SPIFFE servers publish them.
    let domain = TrustDomain::parse("partner.org").unwrap();
    let published = Bundle::from_pem(domain, good.as_bytes()).unwrap();
    fs::write(&bundle, published.to_json().unwrap()).unwrap();
    wait_until("calls pass again", || {
        mesh.call("/api/again", &[]).status == 200
    });
}

fn a_caller_of_an_alias_counts_as_one_of_ours(encryption: &str) {
    let Some((mut mesh, app)) = two_domains(encryption) else {
        return;
    };
    // By its path alone it is nobody.
    mesh.order.configure(allow("user-service"));
    let (carried, bound) = (free_port(), free_port());
    mesh.order.configure(json!({ "service": { "tcp": [
        { "listen": format!("127.0.0.1:{carried}"), "app": format!("127.0.0.1:{}", app.port) },
    ] } }));
    let mut known = mesh.user.config["discovery"]["sources"][0]["services"].take();
    let of_tcp = json!({
        "id": "order-tcp", "host": "127.0.0.1", "port": carried,
        "spiffe_id": "spiffe://example.org/order-service",
    });
    known.as_array_mut().unwrap().push(of_tcp);
    mesh.user.configure(json!({
        "discovery": { "sources": [ { "mode": "static", "services": known } ] },
        "outbound": { "upstreams": [
            { "service": "order-tcp", "bind": format!("127.0.0.1:{bound}"), "protocol": "tcp" },
        ] },
    }));
    mesh.start();
    mesh.call("/api/stranger", &[]).expect(403);
    mesh.order.stop();
    mesh.order
        .configure(json!({ "identity": { "trust_domain_aliases": ["partner.org"] } }));
    mesh.order.start();
    wait_until("the alias counts", || {
        mesh.call("/api/alias", &[]).status == 200
    });
    assert_eq!(app.count("stranger"), 0);
    // The record has the id that the rules know, and the one in the certificate.
    let log = fs::read_to_string(mesh.order.dir().join("logs/mesh-audit.log")).unwrap();
    let ids = [
        r#""peer":"spiffe://example.org/user-service""#,
        r#""certificate":"spiffe://partner.org/user-service""#,
    ];
    let has_both = |line: &str| ids.iter().all(|id| line.contains(id));
    let calls: Vec<_> = log
        .lines()
        .filter(|line| line.contains("/api/alias") && line.contains(r#""verdict":"allow""#))
        .collect();
    assert!(
        !calls.is_empty() && calls.iter().all(|line| has_both(line)),
        "{log}"
    );

    let _connected = TcpStream::connect(("127.0.0.1", bound)).unwrap();
    wait_until("the connection is recorded", || {
        let log = fs::read_to_string(mesh.order.dir().join("logs/mesh-audit.log")).unwrap();
        let port = format!(r#""port":"{carried}""#);
        log.lines()
            .any(|line| line.contains(&port) && has_both(line))
    });
}

#[test]
fn an_alias_without_roots_and_a_domain_with_two_bundles_are_refused() {
    let mesh = Mesh::new("mtls");
    let refuses = |changes: serde_json::Value, expected: &str| {
        let mut node = mesh.node("payment-service", &format!("n{}", expected.len()));
        node.configure(json!({ "identity": changes }));
        let output = node.program(&["check"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{said}");
    };
    refuses(
        json!({ "trust_domain_aliases": ["old.example.org"] }),
        "\"old.example.org\" has no roots here; add it to identity.federation",
    );
    refuses(
        json!({ "federation": [ { "trust_domain": "example.org", "bundle_file": "a.pem" } ] }),
        "has its roots already",
    );
    refuses(
        json!({ "trust_domain_aliases": ["example.org"] }),
        "is our own trust domain",
    );
}
