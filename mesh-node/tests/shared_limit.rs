//! Nodes that keep one rate limit together in a real Redis, and what they do without it.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::thread;

use serde_json::Value;
use serde_json::json;

use support::app::App;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::wait_until;
use support::redis::Redis;

mod support;

/// A node of the service with a limit of `requests` in ten minutes.
fn limited(mesh: &Mesh, app: &App, name: &str, (requests, store): (u32, &Value)) -> Node {
    let mut node = mesh.node("order-service", name);
    let policy = mesh.order.config["policy"].clone();
    let limit = json!({ "max_requests": requests, "window": "10m", "store": store });
    node.configure(json!({ "policy": policy, "resilience": { "rate_limit": limit } }));
    node.serve(app.port);
    node.start();
    node
}

/// Makes so many calls, four at a time; the statuses of their answers.
fn statuses(mesh: &Mesh, calls: u32) -> Vec<u16> {
    let some = || {
        (0..calls / 4)
            .map(|_| mesh.call("/api/x", &[]).status)
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let all = [(); 4].map(|()| scope.spawn(some));
        all.into_iter()
            .flat_map(|some| some.join().unwrap())
            .collect()
    })
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|one| **one == status).count()
}

// threat 47
#[test]
fn four_nodes_admit_together_what_one_may_and_their_share_without_the_store() {
    let mut mesh = Mesh::new("mtls");
    let (Some(app), Some(mut redis)) = (App::start(mesh.path()), Redis::start(mesh.path())) else {
        return;
    };
    let store = json!({
        "mode": "redis", "url": redis.url(), "when_away": "local_share", "nodes": 4, "timeout": "2s",
    });
    let nodes = ["a", "b", "c", "d"].map(|name| limited(&mesh, &app, name, (100, &store)));
    mesh.user
        .discover("order-service", &nodes.each_ref().map(|node| node.inbound));
    mesh.user
        .configure(json!({ "resilience": { "retry": { "max_attempts": 1 } } }));
    mesh.user.start();
    let answers = statuses(&mesh, 140);
    let admitted = count(&answers, 200);
    assert!((99..=100).contains(&admitted), "{admitted}: {answers:?}");
    assert_eq!(admitted + count(&answers, 429), 140);
    assert_eq!(app.seen().len(), admitted);
    let refused = mesh.call("/api/x", &[]).expect(429);
    assert_eq!(refused.header("x-ratelimit-limit"), Some("100"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert!(refused.header("retry-after").is_some());

    // Each node has admitted about its share by now, and counts that in it: hardly anything passes without the store.
    redis.kill();
    let without = count(&statuses(&mesh, 80), 200);
    assert!(
        without <= 25,
        "{without} in place of shares that are used up"
    );
    let is_away = |node: &Node| node.metric("mesh_rate_limit_store{state=\"away\"}") == Some(1.0);
    wait_until("a node says that the store is away", || {
        mesh.call("/api/x", &[]);
        nodes.iter().any(is_away)
    });
    let told = nodes.iter().find(|node| is_away(node)).unwrap();
    let health = told.admin("/health").json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["parts"]["rate_limit"].is_object(), "{health}");

    // It comes back without what it had counted.
    redis.start_again();
    wait_until("a request is admitted by the store again", || {
        mesh.call("/api/x", &[]).status == 200
    });
}

// threat 47
#[test]
fn a_closed_limit_answers_503_while_the_store_is_away() {
    let mut mesh = Mesh::new("mtls");
    let (Some(app), Some(mut redis)) = (App::start(mesh.path()), Redis::start(mesh.path())) else {
        return;
    };
    let store =
        json!({ "mode": "redis", "url": redis.url(), "when_away": "closed", "timeout": "2s" });
    let node = limited(&mesh, &app, "a", (1_000, &store));
    mesh.user.discover("order-service", &[node.inbound]);
    let patient =
        json!({ "retry": { "max_attempts": 1 }, "circuit_breaker": { "threshold": 1000 } });
    mesh.user.configure(json!({ "resilience": patient }));
    mesh.user.start();
    mesh.call("/api/x", &[]).expect(200);
    redis.kill();
    let refused = mesh.call("/api/x", &[]).expect(503);
    assert_eq!(refused.error(), Some("limit_unavailable"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(app.seen().len(), 1);
    redis.start_again();
    wait_until("the store is asked again", || {
        mesh.call("/api/x", &[]).status == 200
    });
}
