//! Writes that can be sent again: whatever breaks on the way, none is executed twice, and none that was answered is lost.
//!
//! By default each is a short test. `cargo xtask soak writes` runs them in full.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod app;
mod calls;
mod keys;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::collections::HashMap;
use std::time::Duration;

use mesh_resilience::random::Random as _;
use mesh_resilience::random::SplitMix64;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use app::App;
use calls::Calls;
use calls::Told;
use support::mesh::Mesh;
use support::process::holds_within;
use support::process::lasts;
use wire::Wire;

fn is_long() -> bool {
    std::env::var_os("MESH_SOAK").is_some()
}

/// A figure of the short form or of the long one.
fn pick(short: usize, long: usize) -> usize {
    if is_long() { long } else { short }
}

#[expect(clippy::print_stderr, reason = "the figures are for people")]
fn say(figure: &str) {
    eprintln!("{figure}");
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Two nodes that send writes again, and an application.
fn mesh(encryption: &str, app: &App) -> Mesh {
    let mut mesh = Mesh::new(encryption);
    let resilience = json!({ "resilience": {
        "safe_writes": { "enabled": true },
        // Nothing but the retry is to be tried here.
        "circuit_breaker": { "threshold": 1_000_000 },
        "retry": { "max_attempts": 8, "initial_delay": "50ms", "max_delay": "500ms", "budget": 1.0 },
    } });
    mesh.order.configure(resilience.clone()).serve(app.port);
    mesh.user.configure(resilience);
    mesh
}

/// What was told must be what was done.
#[track_caller]
fn judge(name: &str, told: &HashMap<String, Told>, app: &App, least_done: usize) {
    let executed = app.executed();
    let mut sums = [0_usize; 3];
    for (id, told) in told {
        let times = executed.get(id).copied().unwrap_or(0);
        assert!(times <= 1, "{id} was executed {times} times, told {told:?}");
        let (place, is_true) = match told {
            Told::Done => (0, times == 1),
            Told::NotDone => (1, times == 0),
            Told::Unknown => (2, true),
            Told::Other(_) => (2, false),
        };
        assert!(is_true, "{id} was executed {times} times, told {told:?}");
        if let Some(sum) = sums.get_mut(place) {
            *sum += 1;
        }
    }
    let [done, not_done, unknown] = sums;
    say(&format!(
        "{name}: of {} writes {done} done, {not_done} not done, {unknown} unknown, 0 twice",
        told.len()
    ));
    assert!(done * 100 >= told.len() * least_done, "only {done} done");
}

/// The node of the called service is killed again and again. What was lost with it must not be executed by another
/// instance either.
fn node(encryption: &str) {
    let runtime = runtime();
    let app = App::start(&runtime, 1, 0);
    let mut mesh = mesh(encryption, &app);
    let mut other = mesh.node("order-service", "other");
    for part in ["policy", "resilience"] {
        other.configure(json!({ part: mesh.order.config[part] }));
    }
    other.serve(app.port);
    let instances = [mesh.order.inbound, other.inbound];
    mesh.user.discover("order-service", &instances);
    mesh.start();
    other.start();
    assert_eq!(mesh.call("/payments", &["-d", "first"]).status, 200);
    let count = pick(500, 10_000);
    let calls = Calls::start(&runtime, mesh.user.outbound, count);
    let random = SplitMix64::new(2);
    let (mut kills, mut next) = (0, 0);
    while calls.ended() < count {
        next += 20 + random.below(100);
        holds_within(Duration::from_mins(1), || calls.ended() >= next.min(count));
        lasts(Duration::from_micros(random.below(10_000) as u64));
        mesh.order.process().kill();
        mesh.order.start();
        kills += 1;
    }
    say(&format!("{kills} kills of the node, {encryption}"));
    judge("node", &calls.told(&runtime), &app, 50);
}

/// The application crashes at every point of a request.
fn application(encryption: &str) {
    let runtime = runtime();
    let app = App::start(&runtime, 3, 25);
    let mut mesh = mesh(encryption, &app);
    mesh.start();
    let calls = Calls::start(&runtime, mesh.user.outbound, pick(500, 10_000));
    judge("application", &calls.told(&runtime), &app, 25);
}

/// connections between the nodes are reset at any byte.
fn resets(encryption: &str, most_bytes: usize) {
    let runtime = runtime();
    let app = App::start(&runtime, 4, 0);
    let mut mesh = mesh(encryption, &app);
    let wire = Wire::start(&runtime, 5, mesh.order.inbound, most_bytes);
    mesh.user.discover("order-service", &[wire.port]);
    mesh.start();
    // Until there is a lease of the instance, nothing that was lost on the way is sent again.
    let has_lease = || mesh.call("/payments", &["-d", "first"]).status == 200;
    assert!(holds_within(Duration::from_secs(20), has_lease));
    let calls = Calls::start(&runtime, mesh.user.outbound, pick(2_000, 100_000));
    let told = calls.told(&runtime);
    say(&format!("{} resets, {encryption}", wire.resets()));
    judge("resets", &told, &app, 90);
}

mod a_write_is_executed_once_at_most_and_once_where_it_was_answered {
    // threat 43
    #[test]
    fn when_the_node_is_killed() {
        super::node("mtls");
    }

    // threat 43
    #[test]
    fn when_the_node_is_killed_and_calls_are_sealed() {
        super::node("hybrid");
    }

    // threat 43
    #[test]
    fn when_the_application_crashes() {
        super::application("mtls");
    }

    // threat 43
    #[test]
    fn when_connections_are_reset() {
        super::resets("mtls", 40_000);
    }

    // threat 43
    #[test]
    fn when_connections_are_reset_and_calls_are_sealed() {
        // The handshake of a session takes several thousand of them.
        super::resets("hybrid", 120_000);
    }
}
