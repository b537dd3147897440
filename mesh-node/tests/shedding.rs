//! A node refuses at once what its application could not answer in time.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::thread;

use serde_json::json;

use support::client::curl;
use support::mesh::Mesh;
use support::process::wait_until;

mod support;

with_both_encryptions!(
    calls_over_the_limit_are_refused_at_once_and_the_others_answered,
    a_write_that_is_shed_makes_nobody_forget_and_a_repeat_needs_no_place,
);

/// Goal R-6, for a limit that can't move.
fn calls_over_the_limit_are_refused_at_once_and_the_others_answered(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = support::app::App::start(mesh.path()) else {
        return;
    };
    let limits = json!({ "enabled": true, "min_limit": 3, "initial_limit": 3, "max_limit": 3 });
    mesh.order.serve(app.port);
    mesh.order
        .configure(json!({ "resilience": { "load_shedding": limits } }));
    mesh.user
        .configure(json!({ "resilience": { "retry": { "max_attempts": 1 } } }));
    mesh.start();
    let mesh = &mesh;
    thread::scope(|scope| {
        let running: Vec<_> = (0..3)
            .map(|_| scope.spawn(move || mesh.call("/slow?seconds=3", &[])))
            .collect();
        wait_until("three calls are under way", || app.count("/slow") == 3);
        let refused = mesh.call("/more", &[]).expect(503);
        assert_eq!(refused.error(), Some("overloaded"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(refused.header("x-mesh-processed"), Some("no"));
        let took = refused.measured["time_total"].as_f64().unwrap();
        assert!(took < 0.5, "{took}");
        for call in running {
            call.join().unwrap().expect(200);
        }
    });
    assert_eq!(app.count("/more"), 0);
    mesh.call("/more", &[]).expect(200);
}

/// With room for one write in the memory, and for one call at the application.
fn a_write_that_is_shed_makes_nobody_forget_and_a_repeat_needs_no_place(encryption: &str) {
    let mut mesh = Mesh::new(encryption);
    let Some(app) = support::app::App::start(mesh.path()) else {
        return;
    };
    let limits = json!({ "enabled": true, "min_limit": 1, "initial_limit": 1, "max_limit": 1 });
    let writes = json!({ "enabled": true, "max_entries": 1 });
    mesh.order.serve(app.port);
    mesh.order.configure(
        json!({ "resilience": { "load_shedding": limits, "safe_writes": writes.clone() } }),
    );
    mesh.user.configure(
        json!({ "resilience": { "retry": { "max_attempts": 1 }, "safe_writes": writes } }),
    );
    mesh.start();
    let mesh = &mesh;
    let pay = |key: &str| {
        let key = format!("Idempotency-Key: {key}");
        mesh.call("/pay", &["-H", &key, "-d", "1"])
    };
    let first = pay("one").expect(200).text();
    thread::scope(|scope| {
        let running = scope.spawn(|| mesh.call("/stall", &[]));
        wait_until("the only place is taken", || app.count("/stall") == 1);
        let refused = pay("two").expect(503);
        assert_eq!(refused.error(), Some("overloaded"));
        assert_eq!(refused.header("x-mesh-processed"), Some("no"));
        assert_eq!(pay("one").expect(200).text(), first);
        curl(&[&format!("http://127.0.0.1:{}/release", app.port)]).expect(200);
        running.join().unwrap().expect(200);
    });
    assert_eq!(app.count("/pay"), 1);
}
