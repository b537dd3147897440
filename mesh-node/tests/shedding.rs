//! A node refuses at once what its application could not answer in time.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::thread;

use serde_json::json;

use support::mesh::Mesh;
use support::process::wait_until;

mod support;

with_both_encryptions!(calls_over_the_limit_are_refused_at_once_and_the_others_answered,);

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
