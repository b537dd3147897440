//! What nodes write down and show: the audit log, metrics, health, the access log.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::Node;
use support::mesh::SECRET;
use support::mesh::try_cli;
use support::process::Process;
use support::process::wait_until;
use support::tools::python;
use support::tools::tool;

mod support;

with_both_encryptions!(
    every_answered_request_is_recorded_when_the_node_is_killed,
    metrics_are_what_prometheus_expects,
    health_and_statistics_tell_the_truth,
    the_access_log_names_every_request,
);

fn every_answered_request_is_recorded_when_the_node_is_killed(encryption: &str) {
    // threat 58
    let Some((mut mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    let port = mesh.user.outbound.to_string();
    let mut command = python(
        &tool("python").unwrap(),
        "load.py",
        &[&port, "4", "GET,POST"],
    );
    let mut load = Process::start(&mut command, mesh.path(), "load");
    wait_until("requests are answered", || {
        load.out().matches(" 200 ").count() > 100
    });
    mesh.order.process().kill();
    load.terminate();
    load.wait(Duration::from_secs(40));
    let out = load.out();
    let answered: Vec<_> = out
        .lines()
        .filter(|line| line.contains(" 200 "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(answered.len() > 100);

    // What a power cut leaves: the start of a record.
    let path = audit_log(&mesh.order);
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"{\"seq\":99999,\"time\":\"20").unwrap();
    drop(file);
    mesh.order.start();
    mesh.order.stop();
    let text = fs::read_to_string(&path).unwrap();
    let recorded: HashSet<String> = text
        .lines()
        .filter_map(|line| {
            find(
                &serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")),
                "request_id",
            )
        })
        .collect();
    for id in answered {
        assert!(
            recorded.contains(id),
            "{id} was answered and is not in the log"
        );
    }
    let report = verify(&path).unwrap();
    assert_eq!(report["repairs"], 1, "{report}");

    // And an edit shows.
    let edited = text.replacen("\"verdict\":\"allow\"", "\"verdict\":\"allow \"", 1);
    assert_ne!(edited, text);
    fs::write(&path, edited).unwrap();
    let found = verify(&path).unwrap_err();
    assert!(found.contains("does not verify"), "{found}");
}

fn metrics_are_what_prometheus_expects(encryption: &str) {
    let Some((mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    for (path, args) in [
        ("/api/orders", &[][..]),
        ("/api/status?code=500", &["-d", "x"]),
        ("/api/status?code=404", &[]),
    ] {
        mesh.call(path, args);
    }
    mesh.user.call("nobody", "/", &[]).expect(404);
    let client = "grpc_client_requests_total";
    assert_eq!(mesh.user.metric(client), Some(3.0));
    assert_eq!(
        mesh.user.metric("grpc_client_requests_failed_total"),
        Some(1.0)
    );
    assert_eq!(mesh.user.metric("circuit_breaker_state"), Some(0.0));
    let ours = "istio_requests_total{";
    let page = mesh.order.admin("/metrics").expect(200).text();
    let line = page
        .lines()
        .find(|line| line.starts_with(ours) && line.contains("response_code=\"500\""))
        .unwrap();
    for label in [
        "reporter=\"destination\"",
        "source_app=\"user-service\"",
        "destination_service=\"order-service\"",
        "source_principal=\"spiffe://example.org/user-service\"",
        "destination_principal=\"spiffe://example.org/order-service\"",
        "connection_security_policy=\"mutual_tls\"",
    ] {
        assert!(line.contains(label), "{label} in {line}");
    }
    let handshakes = mesh.order.metric("mesh_session_handshakes_total");
    assert_eq!(
        handshakes > Some(0.0),
        encryption == "hybrid",
        "{handshakes:?}"
    );

    let Some(promtool) = tool("promtool") else {
        return;
    };
    for node in [&mesh.user, &mesh.order] {
        let page = node.admin("/metrics").expect(200);
        let mut check = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        check.stdin.take().unwrap().write_all(&page.body).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        // The names that Istio's dashboards ask for are not all to the linter's taste; ours must be.
        let complaints: Vec<_> = said
            .lines()
            .filter(|line| !line.starts_with("istio_"))
            .collect();
        assert_eq!(complaints, Vec::<&str>::new());
        assert!(output.status.success() || said.contains("istio_"), "{said}");
    }
}

fn health_and_statistics_tell_the_truth(encryption: &str) {
    let Some((mut mesh, _app)) = Mesh::with_app(encryption) else {
        return;
    };
    mesh.call("/api/orders", &[]).expect(200);
    mesh.call("/api/status?code=500", &["-d", "x"]).expect(500);
    assert_eq!(
        mesh.user.admin("/health").expect(200).json()["status"],
        "ok"
    );
    assert_eq!(mesh.user.admin("/health/live").expect(200).text(), "live\n");
    assert_eq!(
        mesh.user.admin("/health/ready").expect(200).text(),
        "ready\n"
    );
    let services = mesh.user.admin("/health/services").expect(200).json();
    assert_eq!(services.as_array().map(Vec::len), Some(1), "{services}");
    let expected = json!({
        "service": "order-service", "status": "healthy", "standing": "fresh", "isStale": false, "endpoints": 1,
        "healthyEndpoints": 1, "circuitBreaker": "CLOSED", "reason": null,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&services[0][key], value, "{key}: {services}");
    }
    let stats = mesh.order.admin("/stats").expect(200).json();
    assert_eq!(stats["totalRequests"], 2, "{stats}");
    assert_eq!(
        (&stats["successfulRequests"], &stats["failedRequests"]),
        (&json!(1), &json!(1))
    );
    assert!(
        stats["averageLatency"]
            .as_f64()
            .is_some_and(|latency| latency > 0.0),
        "{stats}"
    );
    assert!(
        stats["activeConnections"]
            .as_u64()
            .is_some_and(|open| open >= 1),
        "{stats}"
    );
    assert_eq!(stats["activeSessions"], u64::from(encryption == "hybrid"));
    // What the node says of its log, the log says too.
    let head = stats["audit"]["head"].clone();
    let report = verify(&audit_log(&mesh.order)).unwrap();
    assert_eq!(report["head"], head);

    let config = mesh.order.admin("/config").expect(200);
    assert!(!config.text().contains(SECRET));
    let config = config.json();
    assert_eq!(config["service"]["id"], "order-service");
    assert_eq!(config["security"]["encryption"], encryption);
    assert_eq!(config["resilience"]["circuit_breaker"]["threshold"], 5);
    assert!(config["auth"]["jwt"]["secret"].is_string(), "{config}");
    mesh.order.admin("/none").expect(404);

    // A node that leaves says so before it is gone.
    mesh.user.process().terminate();
    let url = mesh.user.admin_url("/health/ready");
    let left = support::client::curl(&[&url]);
    assert!(matches!(left.status, 503 | 200 | 0), "{left:?}");
    assert!(mesh.user.process().wait(Duration::from_secs(10)).success());
}

fn the_access_log_names_every_request(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    for node in [&mut mesh.user, &mut mesh.order] {
        node.configure(json!({ "access_log": { "enabled": true } }));
    }
    mesh.start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let args = [
        "-H",
        "X-Request-Id: own-1",
        "-H",
        &traceparent,
        "-H",
        "X-User-Id: ada",
        "-H",
        "X-Correlation-Id: c-9",
    ];
    mesh.call("/api/status?code=404", &args).expect(404);
    // What a caller writes does not become a line of the log. threat 56
    mesh.call(
        "/api/%22%7D%7B%22x",
        &[
            "-H",
            "X-Request-Id: a\"},{\"b\":\"",
            "-H",
            "X-User-Id: \u{1b}[31mred",
        ],
    );
    for (node, direction) in [(&mut mesh.user, "outbound"), (&mut mesh.order, "inbound")] {
        assert!(node.stop().success());
        let out = node.process().out();
        let lines: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(!out.contains('\u{1b}'));
        let line = lines
            .iter()
            .find(|line| line["request_id"] == "own-1")
            .unwrap();
        for (field, expected) in [
            ("direction", json!(direction)),
            ("peer", json!("user-service")),
            ("service", json!("order-service")),
            ("method", json!("GET")),
            ("path", json!("/api/status")),
            ("protocol", json!("http")),
            ("response_code", json!(404)),
            ("bytes_sent", json!(22)),
            ("complete", json!(true)),
            ("trace_id", json!(trace)),
            ("user_id", json!("ada")),
            ("correlation_id", json!("c-9")),
        ] {
            assert_eq!(line[field], expected, "{field} in {line}");
        }
        assert!(
            line["duration_ms"].as_f64().is_some_and(|took| took > 0.0),
            "{line}"
        );
        assert!(
            line["timestamp"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z') && time.len() == 24),
            "{line}"
        );
    }
}

fn audit_log(node: &Node) -> PathBuf {
    node.dir().join("logs/mesh-audit.log")
}

/// What `mesh-node audit verify` says: its report, or its message.
fn verify(path: &std::path::Path) -> Result<Value, String> {
    let output = try_cli(path.parent().unwrap(), "--json audit verify mesh-audit.log");
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// The text under a name, wherever it stands.
fn find(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(fields) => {
            let here = fields.get(name).and_then(Value::as_str).map(str::to_owned);
            here.or_else(|| fields.values().find_map(|inner| find(inner, name)))
        }
        Value::Array(items) => items.iter().find_map(|inner| find(inner, name)),
        _ => None,
    }
}
