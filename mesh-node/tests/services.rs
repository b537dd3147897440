//! How endpoints do, and what people see of it: checks, priorities, impostors, pages, metrics and `mesh-node services`.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::Value;
use serde_json::json;

use support::consul::Consul;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::free_port;
use support::process::wait_until;
use support::tools::tool;

mod support;

/// An application that counts what it is asked, and says `ok`.
struct Counted {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Counted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        // Ends with the process; the system closes what it holds.
        let _serving = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                let _answering = thread::spawn(move || answer(stream, &counted));
            }
        });
        Self { port, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Answers requests without a body for as long as the connection lasts.
fn answer(mut stream: TcpStream, counted: &AtomicUsize) {
    let (mut read, mut room) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut room) {
        read.extend_from_slice(&room[..count]);
        while let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            read.drain(..end + 4);
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// What the user service's node shows of the order service.
#[track_caller]
fn page(node: &Node) -> Value {
    node.admin("/services/order-service").expect(200).json()
}

/// The endpoint at `port` on such a page.
#[track_caller]
fn endpoint(page: &Value, port: u16) -> Value {
    let address = format!("127.0.0.1:{port}");
    let mut list = page["endpointList"].as_array().unwrap().iter();
    list.find(|endpoint| endpoint["address"] == address)
        .unwrap()
        .clone()
}

/// The order service at `ports`, checked quickly.
fn checked(ports: &[u16], check: &Value) -> Value {
    let services: Vec<_> = ports
        .iter()
        .map(|port| json!({ "id": "order-service", "host": "127.0.0.1", "port": port }))
        .collect();
    let mut health = json!({ "interval": "200ms", "timeout": "200ms", "rise": 1, "fall": 2 });
    for (key, value) in check.as_object().unwrap() {
        health[key] = value.clone();
    }
    json!({ "discovery": {
        "sources": [ { "mode": "static", "services": services } ],
        "health_check": health,
    } })
}

#[track_caller]
fn services(node: &Node, args: &[&str]) -> String {
    let all = [&["services"], args].concat();
    let output = node.program(&all).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

// threat 48
fn impostors_among_the_endpoints_get_not_one_request(encryption: &str) {
    let Some(h2load) = tool("h2load") else { return };
    let mut mesh = Mesh::new(encryption);
    let (good, evil) = (Counted::start(), Counted::start());
    mesh.order.serve(good.port);
    // More than half of the endpoints, so that no share of ejected endpoints protects them.
    let mut impostors = ["one", "two"].map(|name| mesh.node("payment-service", name));
    let mut ports = vec![mesh.order.inbound];
    for impostor in &mut impostors {
        ports.push(impostor.inbound);
        impostor.serve(evil.port).configure(json!({ "policy": { "rules": [
            { "name": "all", "from": ["*"], "to": { "service": "payment-service" }, "action": "allow" },
        ] } }));
        impostor.start();
    }
    mesh.user.discover("order-service", &ports);
    mesh.start();

    // As many as RELIABILITY asks for take a minute; the same path shows with fewer.
    let count = std::env::var("MESH_TEST_IMPOSTOR_CALLS").unwrap_or_else(|_| "3000".to_owned());
    let url = format!("http://127.0.0.1:{}/", mesh.user.outbound);
    let load = Command::new(h2load)
        .args(["-n", &count, "-c", "4", "-m", "8"])
        .args(["-H", ":authority: order-service", &url])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&load.stdout);
    assert!(
        said.contains(&format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx")),
        "{said}"
    );
    assert_eq!(evil.requests(), 0);
    assert_eq!(good.requests().to_string(), count);

    let page = page(&mesh.user);
    for port in &ports[1..] {
        let found = endpoint(&page, *port);
        assert_eq!(found["state"], "ejected", "{found:#}");
        let reason = found["reason"].as_str().unwrap();
        assert!(reason.starts_with("identity: "), "{reason}");
        assert!(
            reason.contains("spiffe://example.org/payment-service"),
            "{reason}"
        );
    }
    assert_eq!(endpoint(&page, ports[0])["state"], "healthy");
    let ejected = r#"mesh_discovery_endpoints{service="order-service",state="ejected"}"#;
    assert_eq!(mesh.user.metric(ejected), Some(2.0));
    for impostor in &impostors {
        let answered = impostor.metric("istio_requests_total").unwrap_or_default();
        assert!(answered.abs() < 0.1, "{answered}");
    }
}

fn a_check_finds_who_is_gone_and_who_came_back_and_everything_says_so(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let app = Counted::start();
    mesh.order.serve(app.port);
    let mut other = mesh.node("order-service", "other");
    other.serve(app.port);
    other.configure(json!({ "policy": mesh.order.config["policy"] }));
    let ports = [mesh.order.inbound, other.inbound];
    let check = checked(&ports, &json!({ "protocol": "tls" }));
    mesh.user.configure(check);
    mesh.start();
    let state = |mesh: &Mesh, port| endpoint(&page(&mesh.user), port)["state"].clone();
    wait_until("the missing endpoint is found", || {
        state(&mesh, ports[1]) == "unhealthy"
    });
    for _ in 0..20 {
        mesh.call("/", &[]).expect(200);
    }

    let found = endpoint(&page(&mesh.user), ports[1]);
    assert!(
        found["reason"].as_str().unwrap().contains("refused"),
        "{found:#}"
    );
    assert_eq!(found["check"]["status"], "unhealthy");
    assert_eq!(found["spiffeId"], "spiffe://example.org/order-service");
    let line = mesh.user.admin("/health/services").expect(200).json()[0].clone();
    assert_eq!(line["status"], "healthy");
    assert_eq!(line["healthyEndpoints"], 1);
    assert_eq!(line["states"], json!({ "healthy": 1, "unhealthy": 1 }));
    assert_eq!(
        (&line["standing"], &line["isStale"]),
        (&json!("fresh"), &json!(false))
    );
    for (series, at_least) in [
        (
            r#"mesh_discovery_endpoints{service="order-service",state="unhealthy"}"#,
            1.0,
        ),
        (
            r#"mesh_discovery_endpoints{service="order-service",state="healthy"}"#,
            1.0,
        ),
        (
            r#"mesh_discovery_updates_total{service="order-service"}"#,
            1.0,
        ),
        (
            r#"mesh_health_checks_total{service="order-service",outcome="failure"}"#,
            2.0,
        ),
        (
            r#"mesh_health_checks_total{service="order-service",outcome="success"}"#,
            1.0,
        ),
    ] {
        wait_until(series, || mesh.user.metric(series) >= Some(at_least));
    }
    assert_eq!(mesh.user.metric("mesh_discovery_stale"), Some(0.0));
    metrics_are_to_the_linters_taste(&mesh.user);

    the_command_shows_the_same(&mesh.user, ports[1]);
    other.start();
    wait_until("the endpoint that came is found", || {
        state(&mesh, ports[1]) == "healthy"
    });
}

#[track_caller]
fn the_command_shows_the_same(node: &Node, missing: u16) {
    let table = services(node, &[]);
    assert!(
        table.contains("SERVICE") && table.contains("1 healthy, 1 unhealthy"),
        "{table}"
    );
    let table = services(node, &["order-service"]);
    let row = table
        .lines()
        .find(|line| line.contains("unhealthy"))
        .unwrap();
    assert!(
        row.contains(&missing.to_string()) && row.contains("refused"),
        "{table}"
    );
    let json: Value = serde_json::from_str(&services(node, &["order-service", "--json"])).unwrap();
    assert_eq!(json["endpoints"], 2);
    let unknown = node.program(&["services", "nobody"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(1));
}

#[track_caller]
fn metrics_are_to_the_linters_taste(node: &Node) {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    let page = node.admin("/metrics").expect(200);
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(&page.body).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        !said.contains("mesh_discovery") && !said.contains("mesh_health"),
        "{said}"
    );
}

fn a_check_that_is_a_call_reaches_the_application_where_the_peer_allows_it(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let app = Counted::start();
    mesh.order.serve(app.port);
    mesh.order.configure(json!({ "policy": { "rules": [
        { "name": "calls", "from": ["user-service"], "to": { "service": "order-service", "paths": ["/calls"] }, "action": "allow" },
    ] } }));
    let check = checked(
        &[mesh.order.inbound],
        &json!({ "protocol": "http", "path": "/ready" }),
    );
    mesh.user.configure(check);
    mesh.start();
    wait_until("the check is denied", || {
        page(&mesh.user)["states"] == json!({ "unhealthy": 1 })
    });
    let page_now = page(&mesh.user);
    let reason = &endpoint(&page_now, mesh.order.inbound)["reason"];
    assert_eq!(
        reason,
        "its policy denies the check; allow this service to ask"
    );
    // None may be used, so all are: more likely the check is wrong than the whole service gone.
    assert_eq!(page_now["usesAll"], true);
    assert_eq!(app.requests(), 0);
    mesh.call("/calls", &[]).expect(200);

    mesh.order.stop();
    mesh.order.configure(json!({ "policy": { "rules": [
        { "name": "calls", "from": ["user-service"], "to": { "service": "order-service", "paths": ["/calls", "/ready"] }, "action": "allow" },
    ] } }));
    mesh.order.start();
    wait_until("the check passes", || {
        page(&mesh.user)["states"] == json!({ "healthy": 1 })
    });
    assert!(app.requests() > 1);
}

with_both_encryptions!(
    impostors_among_the_endpoints_get_not_one_request,
    a_check_finds_who_is_gone_and_who_came_back_and_everything_says_so,
    a_check_that_is_a_call_reaches_the_application_where_the_peer_allows_it,
);

#[test]
fn a_node_that_knows_no_services_and_one_that_does_not_run_are_told_apart() {
    let mut mesh = Mesh::new("mtls");
    mesh.order.start();
    let table = services(&mesh.order, &[]);
    assert!(table.contains("knows no services"), "{table}");
    mesh.user
        .configure(json!({ "admin": { "listen": format!("127.0.0.1:{}", free_port()) } }));
    let output = mesh.user.program(&["services"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no node answers on 127.0.0.1"), "{said}");
}

#[test]
fn a_registry_that_is_gone_is_told_everywhere_and_calls_go_on() {
    let mut mesh = Mesh::new("mtls");
    let Some(mut consul) = Consul::start(mesh.path()) else {
        return;
    };
    let app = Counted::start();
    mesh.order.serve(app.port);
    let source = json!({ "mode": "consul", "name": "main-registry", "url": consul.url() });
    mesh.user.config["discovery"] = json!({ "sources": [source] });
    consul.register("order-service", mesh.order.inbound);
    mesh.start();
    mesh.call("/", &[]).expect(200);
    let fresh = page(&mesh.user);
    assert_eq!(
        (&fresh["standing"], &fresh["isStale"]),
        (&json!("fresh"), &json!(false))
    );
    assert_eq!(fresh["sources"][0]["source"], "main-registry");
    let found = endpoint(&fresh, mesh.order.inbound);
    assert_eq!(
        (&found["source"], &found["weight"]),
        (&json!("main-registry"), &json!(1))
    );
    assert!(mesh.user.metric("mesh_discovery_age_seconds{") < Some(60.0));
    let part =
        |mesh: &Mesh| mesh.user.admin("/health").expect(200).json()["parts"]["discovery"].clone();
    assert_eq!(part(&mesh), Value::Null);

    consul.kill();
    wait_until("the node says that it goes on with what it had", || {
        part(&mesh)["level"] == "degraded"
    });
    let message = part(&mesh)["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("order-service: stale: source unreachable; main-registry"),
        "{message}"
    );
    assert_eq!(mesh.user.metric("mesh_discovery_stale{"), Some(1.0));
    wait_until("the failure is counted", || {
        let series = r#"mesh_discovery_failures_total{source="main-registry"}"#;
        mesh.user.metric(series) >= Some(1.0)
    });
    let table = services(&mesh.user, &[]);
    assert!(table.contains("stale: source unreachable"), "{table}");
    let table = services(&mesh.user, &["order-service"]);
    assert!(
        table.contains("main-registry (used): stale: source unreachable, 1 endpoints"),
        "{table}"
    );
    for _ in 0..10 {
        mesh.call("/", &[]).expect(200);
    }

    consul.start_again();
    consul.register("order-service", mesh.order.inbound);
    wait_until("all is well again", || part(&mesh) == Value::Null);
    assert_eq!(page(&mesh.user)["standing"], "fresh");
    assert_eq!(mesh.user.metric("mesh_discovery_stale{"), Some(0.0));
}
