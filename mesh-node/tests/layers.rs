//! What the sections of `resilience` do to calls between real nodes.

use std::thread;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::process::wait_until;

mod support;

/// Two nodes with an application behind the called one, and `resilience` for the calling one.
fn mesh(resilience: &Value) -> Option<(Mesh, App)> {
    let mut mesh = Mesh::new("mtls");
    let app = App::start(mesh.path())?;
    mesh.order.serve(app.port);
    mesh.user.configure(json!({ "resilience": resilience }));
    mesh.start();
    Some((mesh, app))
}

#[test]
fn each_attempt_has_a_time_of_its_own() {
    let Some((mesh, app)) = mesh(&json!({
        "retry": { "max_attempts": 2, "initial_delay": "1ms", "per_try_timeout": "300ms" },
    })) else {
        return;
    };
    let late = mesh.call("/api/slow?seconds=3", &[]).expect(504);
    assert_eq!(late.error(), Some("timeout"));
    let took = late.measured["time_total"].as_f64().unwrap();
    assert!((0.6..2.5).contains(&took), "{took}");
    wait_until("both attempts are there", || app.count("slow") == 2);
}

#[test]
fn slow_answers_open_the_circuit_though_they_succeed() {
    let Some((mesh, _app)) = mesh(&json!({
        "circuit_breaker": { "slow_calls": { "longer_than": "100ms", "max_ratio": 0.75, "min_volume": 4 } },
    })) else {
        return;
    };
    mesh.call("/api/orders", &[]).expect(200);
    for state in ["CLOSED", "CLOSED", "OPEN"] {
        let slow = mesh.call("/api/slow?seconds=0.2", &[]).expect(200);
        assert_eq!(slow.header("x-circuit-breaker-state"), Some(state));
    }
    let refused = mesh.call("/api/orders", &[]).expect(503);
    assert_eq!(refused.error(), Some("circuit_open"));
}

#[test]
fn few_successes_open_the_circuit_though_no_five_failures_come_in_a_row() {
    let Some((mesh, _app)) = mesh(&json!({
        "circuit_breaker": { "success_rate": { "min_ratio": 0.5, "min_volume": 5 } },
    })) else {
        return;
    };
    let fails = "/api/status?code=500";
    for (target, state) in [
        (fails, "CLOSED"),
        ("/api/orders", "CLOSED"),
        (fails, "CLOSED"),
        ("/api/orders", "CLOSED"),
        (fails, "OPEN"),
    ] {
        let answer = mesh.call(target, &[]);
        assert_eq!(answer.header("x-circuit-breaker-state"), Some(state));
    }
}

#[test]
fn a_call_waits_for_a_place_no_longer_than_it_is_told() {
    let Some((mesh, app)) = mesh(&json!({
        "retry": { "max_attempts": 1 },
        "bulkhead": { "max_concurrent": 1, "max_waiting": 1, "max_wait": "200ms" },
    })) else {
        return;
    };
    thread::scope(|scope| {
        let running = scope.spawn(|| mesh.call("/api/slow?seconds=2", &[]));
        wait_until("the first call is there", || app.count("slow") == 1);
        let refused = mesh.call("/api/orders", &[]).expect(503);
        assert_eq!(refused.error(), Some("overloaded"));
        let took = refused.measured["time_total"].as_f64().unwrap();
        assert!((0.2..1.5).contains(&took), "{took}");
        running.join().unwrap().expect(200);
    });
    mesh.call("/api/orders", &[]).expect(200);
}
