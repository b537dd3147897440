//! Keys of applications: what a repeat is answered, whose it is, and what becomes of it where nothing is remembered.

use std::fs;

use serde_json::json;

use crate::app::App;
use crate::mesh;
use crate::runtime;
use crate::support::client::Answer;
use crate::support::mesh::Mesh;
use crate::support::mesh::Node;

fn pay(node: &Node, key: &str, body: &str) -> Answer {
    let key = format!("Idempotency-Key: {key}");
    node.call("order-service", "/payments", &["-H", &key, "-d", body])
}

fn executions(app: &App, body: &str) -> u32 {
    app.executed().get(body).copied().unwrap_or(0)
}

#[test]
fn a_key_is_answered_from_memory_for_its_caller_and_its_request_alone() {
    let runtime = runtime();
    let app = App::start(&runtime, 6, 0);
    let mut mesh = mesh("hybrid", &app);
    let mut other = mesh.node("payment-service", "payment");
    for part in ["discovery", "resilience"] {
        other.configure(json!({ part: mesh.user.config[part] }));
    }
    mesh.order.configure(json!({
        "policy": { "default": "audit" },
        "audit": { "enabled": true, "path": "audit.log", "events": ["message"] },
    }));
    mesh.start();
    other.start();

    for _ in 0..3 {
        let answer = pay(&mesh.user, "k-1", "one");
        assert_eq!((answer.status, &*answer.text()), (200, "done one"));
        assert_eq!(answer.header("x-mesh-once-lease"), None);
    }
    assert_eq!(executions(&app, "one"), 1);
    let reused = pay(&mesh.user, "k-1", "another");
    assert_eq!(reused.status, 422);
    assert_eq!(reused.error(), Some("key_reused"));
    assert_eq!(executions(&app, "another"), 0);
    // Nor is it that of another user of the same caller.
    for field in ["Authorization: Bearer other", "Cookie: session=other"] {
        let args = ["-H", "Idempotency-Key: k-1", "-H", field, "-d", "one"];
        let taken = mesh.call("/payments", &args);
        assert_eq!((taken.status, taken.error()), (422, Some("key_reused")));
    }
    assert_eq!(executions(&app, "one"), 1);
    // Somebody else's key of the same name is another one.
    assert_eq!(pay(&other, "k-1", "one").status, 200);
    assert_eq!(executions(&app, "one"), 2);

    // Calls without one are calls of their own.
    for _ in 0..2 {
        assert_eq!(mesh.call("/payments", &["-d", "two"]).status, 200);
    }
    assert_eq!(executions(&app, "two"), 2);
    assert_eq!(mesh.order.metric("mesh_once_answered_total"), Some(2.0));
    assert_eq!(mesh.order.metric("mesh_once_mismatched_total"), Some(3.0));
    let log = fs::read_to_string(mesh.order.dir().join("audit.log")).unwrap();
    assert_eq!(log.matches("from memory").count(), 2);
}

#[test]
fn an_answer_that_is_too_large_to_be_kept_is_given_once_and_said_to_be_lost_afterwards() {
    let runtime = runtime();
    let app = App::start(&runtime, 7, 0);
    let mut mesh = mesh("mtls", &app);
    let small = json!({ "resilience": { "safe_writes": { "max_answer_bytes": 1000 } } });
    mesh.order.configure(small);
    mesh.start();
    let body = "x".repeat(2000);
    let first = pay(&mesh.user, "k-2", &body);
    assert_eq!((first.status, first.text()), (200, format!("done {body}")));
    let again = pay(&mesh.user, "k-2", &body);
    assert_eq!(again.status, 502);
    assert_eq!(again.error(), Some("answer_lost"));
    assert_eq!(executions(&app, &body), 1);
}

/// With nothing remembered at one end or the other, keys are the applications' own business.
#[test]
fn a_node_that_remembers_nothing_carries_keys_as_any_other_field() {
    for (user, order) in [(true, false), (false, true)] {
        let runtime = runtime();
        let app = App::start(&runtime, 8, 0);
        let mut mesh: Mesh = mesh("mtls", &app);
        let enabled =
            |is_on: bool| json!({ "resilience": { "safe_writes": { "enabled": is_on } } });
        mesh.user.configure(enabled(user));
        mesh.order.configure(enabled(order));
        mesh.start();
        for _ in 0..2 {
            assert_eq!(pay(&mesh.user, "k-3", "three").status, 200);
        }
        assert_eq!(executions(&app, "three"), 2);
    }
}

/// The lease that the caller holds is of a memory that is switched off: what is sent under it is refused, and calls go on.
#[test]
fn a_node_that_stops_remembering_runs_nothing_under_the_leases_that_it_gave() {
    let runtime = runtime();
    let app = App::start(&runtime, 9, 0);
    let mut mesh: Mesh = mesh("mtls", &app);
    mesh.start();
    assert_eq!(pay(&mesh.user, "k-4", "four").status, 200);
    mesh.order.stop();
    let off = json!({ "resilience": { "safe_writes": { "enabled": false } } });
    mesh.order.configure(off);
    mesh.order.start();
    let refused = || {
        mesh.order
            .metric("mesh_node_refusals_total{code=\"stale_lease\"")
    };
    for (body, key) in [("five", "k-5"), ("six", "k-6")] {
        assert_eq!(pay(&mesh.user, key, body).status, 200);
        assert_eq!(executions(&app, body), 1);
        // Once told that there is no lease any more, its caller asks for none.
        assert_eq!(refused(), Some(1.0));
    }
}
