//! What people see of the layers that keep calls alive: each is brought into its states, and then read back from the pages,
//! from `mesh-node services`, from the metrics and from the answers.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::io::Write;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::free_port;
use support::process::wait_until;
use support::tools::tool;

mod support;

/// What the calling node shows of the order service.
#[track_caller]
fn page(node: &Node) -> Value {
    node.admin("/services/order-service").expect(200).json()
}

/// The lane of a route on such a page, or the service's own.
#[track_caller]
fn lane(page: &Value, route: Option<&str>) -> Value {
    let mut lanes = page["lanes"].as_array().unwrap().iter();
    lanes
        .find(|lane| lane["route"].as_str() == route)
        .unwrap()
        .clone()
}

#[track_caller]
fn services(node: &Node, args: &[&str]) -> String {
    let all = [&["services"], args].concat();
    let output = node.program(&all).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn metrics_are(node: &Node, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        assert_eq!(node.metric(series), Some(*value), "{series}");
    }
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
    for name in ["mesh_resilience", "circuit_breaker", "mesh_rate_limit"] {
        assert!(!said.contains(name), "{said}");
    }
}

#[test]
fn circuits_budgets_and_places_are_seen_for_the_service_and_for_each_route() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.user.configure(json!({
        "resilience": { "retry": { "initial_delay": "1ms" } },
        "routes": [
            { "name": "fragile", "match": { "path": "/fragile/*" }, "retry": { "max_attempts": 1 },
              "circuit_breaker": { "threshold": 2 } },
            { "name": "narrow", "match": { "path": "/narrow/*" }, "retry": { "max_attempts": 1 },
              "bulkhead": { "max_concurrent": 1, "max_waiting": 2 } },
            { "name": "hedged", "match": { "path": "/hedged/*" }, "hedge": { "max_delay": "10s" } },
            { "name": "few", "match": { "path": "/few" }, "rate_limit": { "max_requests": 3, "window": "1h" } },
        ],
    }));
    mesh.start();
    let mesh = &mesh;
    let user = &mesh.user;

    // Tried three times, which is two of the ten retries that are always allowed.
    mesh.call("/status?code=503", &[]).expect(503);
    for _ in 0..2 {
        mesh.call("/fragile/status?code=500", &[]).expect(500);
    }
    let refused = mesh.call("/fragile/ok", &[]).expect(503);
    assert_eq!(refused.error(), Some("circuit_open"));
    assert_eq!(refused.header("x-circuit-breaker-state"), Some("OPEN"));
    let few = mesh.call("/few", &[]).expect(200);
    assert_eq!(few.header("x-ratelimit-limit"), Some("3"));
    assert_eq!(few.header("x-ratelimit-remaining"), Some("2"));

    let retries = r#"mesh_resilience_retry_budget_retries{service="order-service"}"#;
    metrics_are(user, &[(retries, 2.0)]);
    let text = services(user, &["order-service"]);
    assert!(text.contains("retries 2 of"), "{text}");
    let shown = page(user);
    assert_eq!(shown["circuitBreaker"], "CLOSED");
    let own = lane(&shown, None);
    assert_eq!(own["circuitBreaker"]["state"], "CLOSED");
    assert_eq!(own["retryBudget"]["retries"], 2, "{own:#}");
    assert_eq!(own["hedge"], Value::Null, "not asked for");
    let hedge = &lane(&shown, Some("hedged"))["hedge"];
    assert_eq!(hedge["delayMilliseconds"], json!(10_000.0), "{hedge:#}");
    let fragile = lane(&shown, Some("fragile"));
    let circuit = &fragile["circuitBreaker"];
    assert_eq!(
        (&circuit["state"], &circuit["opened"]),
        (&json!("OPEN"), &json!(1))
    );
    let again = circuit["triesAgainInSeconds"].as_u64().unwrap();
    assert!((1..=72).contains(&again), "{again}");
    assert_eq!(fragile["bulkhead"], Value::Null, "shared with the service");
    assert!(shown["lanes"].as_array().unwrap().len() == 4, "{shown:#}");

    thread::scope(|scope| {
        let calls: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| mesh.call("/narrow/slow?seconds=1.5", &[])))
            .collect();
        let full = json!({ "running": 1, "waiting": 2, "maxConcurrent": 1, "maxWaiting": 2 });
        wait_until("one call runs and two wait", || {
            lane(&page(user), Some("narrow"))["bulkhead"] == full
        });
        let refused = mesh.call("/narrow/more", &[]).expect(503);
        assert_eq!(refused.error(), Some("overloaded"));
        metrics_are(
            user,
            &[(
                r#"mesh_resilience_bulkhead_max_waiting{route="narrow","#,
                2.0,
            )],
        );
        for call in calls {
            call.join().unwrap().expect(200);
        }
    });
    wait_until("nobody is there any more", || {
        lane(&page(user), Some("narrow"))["bulkhead"]["running"] == 0
    });

    metrics_are(
        user,
        &[
            (r#"circuit_breaker_state{service="order-service"}"#, 0.0),
            (
                r#"circuit_breaker_state{route="fragile",service="order-service"}"#,
                1.0,
            ),
            (
                r#"mesh_resilience_circuit_breaker_opened_total{route="fragile","#,
                1.0,
            ),
            (
                r#"mesh_resilience_bulkhead_running{service="order-service"}"#,
                0.0,
            ),
            (
                r#"mesh_resilience_bulkhead_max_running{service="order-service"}"#,
                100.0,
            ),
            (
                r#"mesh_resilience_bulkhead_max_running{route="narrow","#,
                1.0,
            ),
            (
                r#"mesh_resilience_health_ignored{service="order-service"}"#,
                0.0,
            ),
            (r#"mesh_route_rate_limit_remaining{route="few"}"#, 2.0),
        ],
    );
    // What is shared is shown once.
    assert_eq!(
        user.metric(r#"mesh_resilience_bulkhead_running{route="fragile""#),
        None
    );
    let text = services(user, &["order-service"]);
    for part in [
        "route fragile: circuit OPEN, tries again in",
        "route narrow: ",
        "hedges after",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = services(user, &[]);
    for part in [
        "order-service, route fragile: circuit OPEN",
        "route few: 2 of 3 calls left in the window",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Value = serde_json::from_str(&services(user, &["--json"])).unwrap();
    assert_eq!(json["routes"][0]["rateLimit"]["remaining"], 2);
    assert_eq!(json["services"][0]["lanes"][0]["route"], Value::Null);
    metrics_are_to_the_linters_taste(user);
}

#[test]
fn an_ejected_endpoint_is_seen_with_what_for_and_how_long_still() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    let ports = [mesh.order.inbound, free_port()];
    mesh.user.discover("order-service", &ports);
    mesh.user.configure(json!({
        "resilience": { "retry": { "initial_delay": "1ms" }, "outlier_ejection": { "consecutive_5xx": 1 } },
    }));
    mesh.start();
    let user = &mesh.user;
    let ejected = || {
        mesh.call("/", &[]).expect(200);
        let shown = page(user);
        let mut list = shown["endpointList"].as_array().unwrap().iter();
        list.find(|one| one["state"] == "ejected").cloned()
    };
    wait_until("the one that is not there is ejected", || {
        ejected().is_some()
    });
    let gone = ejected().unwrap();
    let why = gone["ejection"]["why"].as_str().unwrap();
    assert!(
        gone["ejectedForSeconds"].as_u64().unwrap() <= 60,
        "{gone:#}"
    );
    let series =
        format!(r#"mesh_resilience_ejected_endpoints{{service="order-service",reason="{why}"}}"#);
    metrics_are(user, &[(&series, 1.0)]);
    let text = services(user, &["order-service"]);
    assert!(text.contains(&format!("({why}, back in ")), "{text}");
}

#[test]
fn limits_and_shedding_of_a_called_node_are_seen_there() {
    let mut mesh = Mesh::new("mtls");
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    mesh.order.configure(json!({ "resilience": {
        "load_shedding": { "enabled": true, "min_limit": 1, "initial_limit": 1, "max_limit": 1 },
        "rate_limit": { "max_requests": 3, "window": "1h" },
    } }));
    mesh.user
        .configure(json!({ "resilience": { "retry": { "max_attempts": 1 } } }));
    mesh.start();
    let mesh = &mesh;
    let order = &mesh.order;
    let inbound = || order.admin("/services").expect(200).json()["inbound"].clone();
    thread::scope(|scope| {
        let running = scope.spawn(|| mesh.call("/slow?seconds=1.5", &[]));
        wait_until("a call is under way", || {
            inbound()["loadShedding"]["inFlight"] == 1
        });
        let refused = mesh.call("/more", &[]).expect(503);
        assert_eq!(refused.error(), Some("overloaded"));
        running.join().unwrap().expect(200);
    });
    mesh.call("/last", &[]).expect(200);
    let refused = mesh.call("/over", &[]).expect(429);
    assert_eq!(refused.error(), Some("rate_limited"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));

    let shown = inbound();
    assert_eq!(
        shown["rateLimit"],
        json!({ "mode": "node", "store": null, "callers": 1 })
    );
    let shed = &shown["loadShedding"];
    assert_eq!((&shed["limit"], &shed["shed"]), (&json!(1), &json!(1)));
    assert_eq!(shown["safeWrites"], Value::Null);
    metrics_are(
        order,
        &[
            ("mesh_resilience_shed_limit", 1.0),
            ("mesh_resilience_shed_running", 0.0),
            ("mesh_resilience_shed_requests_total", 1.0),
            ("mesh_rate_limit_callers", 1.0),
            (
                r#"mesh_rate_limit_decisions_total{result="limited",by="node"}"#,
                1.0,
            ),
        ],
    );
    metrics_are_to_the_linters_taste(order);
}
