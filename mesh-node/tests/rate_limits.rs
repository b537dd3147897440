//! The rate limit service of a node, asked by Envoy, by another node and by a client in another language; a node that asks
//! one; and what their configuration can't be.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::path::Path;

use mesh_node::config::Environment;
use mesh_node::config::NodeConfig;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use support::app::App;
use support::envoy::Envoy;
use support::envoy::Identity;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::free_port;
use support::rls::RateLimits;
use support::rls::ask;
use support::rls::question;

mod support;

const ORDER: &str = "spiffe://example.org/order-service";

/// Three a day for each tenant, and none for one.
const RULES: &str = "\
domain: edge
descriptors:
  - key: tenant
    rate_limit: { unit: day, requests_per_unit: 3 }
  - key: tenant
    value: banned
    rate_limit:
      unit: DAY
      requests_per_unit: 0
";

/// Lets a node serve the rules; gives the port.
fn serve(node: &mut Node, callers: &[&str]) -> u16 {
    let port = free_port();
    fs::write(node.dir().join("edge.yaml"), RULES).unwrap();
    node.configure(json!({ "rate_limit_service": {
        "listen": format!("127.0.0.1:{port}"), "files": ["edge.yaml"], "callers": callers,
    } }));
    port
}

#[track_caller]
fn is_limited(envoy: &Envoy) {
    for left in ["2", "1", "0"] {
        let answer = envoy.call("/api", &["-H", "x-tenant: acme"]).expect(200);
        let limit = answer.header("x-ratelimit-limit").unwrap();
        assert!(limit.starts_with('3'), "{limit}");
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
    }
    let refused = envoy.call("/api", &["-H", "x-tenant: acme"]).expect(429);
    let seconds: u32 = refused
        .header("x-ratelimit-reset")
        .unwrap()
        .parse()
        .unwrap();
    assert!((86_000..=86_401).contains(&seconds), "{seconds}");
    envoy.call("/api", &["-H", "x-tenant: banned"]).expect(429);
    envoy.call("/api", &["-H", "x-tenant: globex"]).expect(200);
    envoy.call("/api", &[]).expect(200);
}

#[test]
fn envoy_keeps_the_limits_that_a_node_knows() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let port = serve(&mut mesh.order, &[]);
    mesh.order.start();
    let Some(envoy) = Envoy::limited(app.port, port, None, mesh.path()) else {
        return;
    };
    is_limited(&envoy);
    let count = |rule: &str, result: &str| {
        let labels = format!("domain=\"edge\",rule=\"edge.{rule}\",result=\"{result}\"");
        mesh.order.metric(&format!(
            "mesh_rate_limit_service_answers_total{{{labels}}}"
        ))
    };
    assert_eq!(count("tenant", "ok"), Some(4.0));
    assert_eq!(count("tenant", "over_limit"), Some(1.0));
    assert_eq!(count("tenant_banned", "over_limit"), Some(1.0));
    // A client of another language keeps the same limits with it.
    let answers = ask(
        port,
        &[
            question("edge", &[("tenant", "acme")]),
            json!({"health": ""}),
        ],
    );
    let answers = answers.unwrap();
    assert_eq!(answers[0]["overall_code"], "OVER_LIMIT");
    assert_eq!(answers[1]["status"], 1);
}

#[test]
fn over_mutual_tls_only_those_who_are_named_may_ask() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let port = serve(&mut mesh.order, &["spiffe://example.org/user-service"]);
    mesh.order.start();
    let as_service = |node: &Node, service: &str| {
        Identity::new(&node.dir().join("certs"), service, "example.org")
    };
    let user = as_service(&mesh.user, "user-service");
    let Some(envoy) = Envoy::limited(app.port, port, Some((&user, ORDER)), mesh.path()) else {
        return;
    };
    is_limited(&envoy);
    // Another one of the same trust domain, and one that shows nothing.
    let order = as_service(&mesh.order, "order-service");
    for stranger in [Some((&order, ORDER)), None] {
        let envoy = Envoy::limited(app.port, port, stranger, mesh.path()).unwrap();
        envoy.call("/api", &["-H", "x-tenant: globex"]).expect(500);
    }
    assert!(mesh.order.metric("mesh_session_refused_total").unwrap() >= 2.0);
}

/// The message about a configuration with this rate limit service, and these rules.
fn refused(dir: &Path, service: &str, rules: &str) -> String {
    let text = format!(
        "service: {{ id: a }}\nidentity: {{ trust_domain: example.org, source: builtin, ca_dir: ca }}\nrate_limit_service: {service}\n"
    );
    fs::write(dir.join("rules.yaml"), rules).unwrap();
    fs::write(dir.join("mesh.yaml"), text).unwrap();
    let error = NodeConfig::load(&dir.join("mesh.yaml"), &Environment::new()).unwrap_err();
    let shown = dir.join("").display().to_string();
    error.to_string().replace(&shown, "")
}

#[test]
fn what_is_wrong_with_rules_is_said_with_its_place() {
    let dir = TempDir::new().unwrap();
    let rule = |rest: &str| format!("domain: d\ndescriptors:\n  - key: k\n    {rest}\n");
    let here = "{ files: [rules.yaml] }";
    for (rules, expected) in [
        (rule("valeu: x"), "rules.yaml:4:5: "),
        (
            rule("rate_limit: { unit: fortnight, requests_per_unit: 1 }"),
            "rules.yaml:4:25: ",
        ),
        (rule("rate_limit: { unit: day }"), "rules.yaml:4:"),
        (
            rule("descriptors: [ { key: a }, { key: a } ]"),
            "rules.yaml:4:",
        ),
        ("descriptors: []\n".to_owned(), "rules.yaml:1:"),
    ] {
        let message = refused(dir.path(), here, &rules);
        assert!(message.starts_with(expected), "{message}");
    }
    let good = rule("rate_limit: { unit: day, requests_per_unit: 1 }");
    for (service, expected) in [
        ("{ files: [] }", "names no file with rules"),
        ("{ files: [none.yaml] }", "none.yaml"),
        ("{ files: [rules.yaml, rules.yaml] }", "is there already"),
        (
            "{ listen: \"0.0.0.0:8081\", files: [rules.yaml] }",
            "is not on loopback",
        ),
        (
            "{ listen: \"127.0.0.1:9090\", files: [rules.yaml] }",
            "is taken by",
        ),
        (
            "{ files: [rules.yaml], callers: [edge] }",
            "is neither a SPIFFE id",
        ),
    ] {
        let message = refused(dir.path(), service, &good);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn check_says_what_is_served_and_what_has_no_effect() {
    let mut mesh = Mesh::new("mtls");
    serve(&mut mesh.order, &[]);
    let rules = format!("{RULES}    detailed_metric: true\n");
    let output = mesh.order.program(&["check"]);
    fs::write(mesh.order.dir().join("edge.yaml"), rules).unwrap();
    let output = { output }.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains("2 descriptor(s) of edge, on 127.0.0.1:"),
        "{text}"
    );
    assert!(
        text.contains("descriptors[1].detailed_metric has no effect here"),
        "{text}"
    );
}

/// What makes the order service ask a rate limit service.
fn store(port: u16, more: &Value) -> Value {
    let mut store = json!({
        "mode": "rls", "address": format!("127.0.0.1:{port}"), "domain": "edge", "timeout": "5s",
    });
    let (into, more) = (store.as_object_mut().unwrap(), more.as_object().unwrap());
    into.extend(more.clone());
    json!({ "resilience": { "rate_limit": { "store": store } } })
}

#[test]
fn a_node_keeps_the_limits_that_another_node_knows() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let mut limits = mesh.node("payment-service", "limits");
    let port = serve(&mut limits, &[ORDER]);
    limits.start();
    mesh.order.serve(app.port).configure(store(
        port,
        &json!({
            "spiffe_id": "spiffe://example.org/payment-service",
            "descriptors": [ ["tenant=header:x-tenant"] ],
            "when_away": "closed",
        }),
    ));
    mesh.start();
    let as_tenant = |tenant: &str| mesh.call("/api", &["-H", &format!("x-tenant: {tenant}")]);
    for left in ["2", "1", "0"] {
        let answer = as_tenant("acme").expect(200);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
    }
    let refused = as_tenant("acme").expect(429);
    assert_eq!(refused.error(), Some("rate_limited"));
    let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((86_000..=86_401).contains(&seconds), "{seconds}");
    as_tenant("globex").expect(200);
    // Nothing is known of this one that the service could be told.
    let free = mesh.call("/api", &[]).expect(200);
    assert_eq!(free.header("x-ratelimit-limit"), None);

    limits.process().kill();
    let closed = as_tenant("globex").expect(503);
    assert_eq!(closed.error(), Some("limit_unavailable"));
    let by_nobody = "mesh_rate_limit_decisions_total{result=\"unavailable\",by=\"nobody\"}";
    assert!(mesh.order.metric(by_nobody).unwrap() >= 1.0);
}

#[test]
fn a_node_understands_a_service_in_another_language_and_its_silence() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    let Some(service) = RateLimits::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port).configure(store(service.port, &json!({
        "descriptors": [ ["peer", "path"], ["of=text:orders", "service", "method"], ["header:x-none"] ],
        "when_away": "open",
        "timeout": "500ms",
    })));
    mesh.start();
    let header = |name: &str, value: &str| json!({ "key": name, "value": value });
    service.tell(&json!({"answer": { "overall_code": "OK", "response_headers_to_add": [
        header("x-from-limits", "yes"), header("content-length", "7"), header("x-mesh-peer-id", "somebody"),
    ] }}));
    let answer = mesh.call("/api/orders?q=1", &[]).expect(200);
    assert_eq!(answer.header("x-from-limits"), Some("yes"));
    assert_eq!(answer.header("x-mesh-peer-id"), None);
    let entry = |key: &str, value: &str| json!({ "key": key, "value": value });
    let asked = json!({ "domain": "edge", "hits_addend": 1, "descriptors": [
        { "entries": [ entry("peer", "spiffe://example.org/user-service"), entry("path", "/api/orders") ] },
        { "entries": [ entry("of", "orders"), entry("service", "order-service"), entry("method", "GET") ] },
    ] });
    assert_eq!(service.requests(), [asked]);
    service.tell(&json!({"answer": { "overall_code": "OVER_LIMIT" }}));
    mesh.call("/api", &[]).expect(429);
    service.tell(&json!({"silent": true}));
    for _ in 0..4 {
        mesh.call("/api", &[]).expect(200);
    }
    assert_eq!(
        mesh.order.metric("mesh_rate_limit_store{state=\"away\"}"),
        Some(1.0)
    );
    let health = mesh.order.admin("/health").text();
    assert!(
        health.contains("every request is admitted until it is back"),
        "{health}"
    );
}
