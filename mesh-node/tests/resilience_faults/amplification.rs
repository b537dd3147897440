//! in a total outage retries do not multiply the calls, though every node on the way retries.

use std::time::Duration;

use serde_json::json;

use crate::pick;
use crate::say;
use crate::scene::Scene;
use crate::support::open_load::Work;
use crate::support::process::lasts;

fn outage(hops: usize, breaker: &str, most: f64) {
    let threshold = if breaker == "never opens" {
        1_000_000
    } else {
        5
    };
    let mut scene = Scene::chain(
        hops,
        &Work::Nothing,
        &json!({
            "circuit_breaker": { "threshold": threshold },
            "retry": { "initial_delay": "20ms" },
        }),
    );
    scene.start();
    scene.last().answers(503);
    let before = scene.last().count();
    let load = scene.load(50);
    lasts(pick(Duration::from_secs(6), Duration::from_mins(1)));
    let calls = scene.stop(load);
    let reached = scene.last().count() - before;
    let factor = count(reached) / count(calls.made);
    say(&format!(
        "R-4 {hops} hops, breaker {breaker}: {} calls, {reached} reached the application, {factor:.2} each",
        calls.made,
    ));
    assert_eq!(calls.failed.len(), calls.made);
    assert!(reached > 0, "an outage that nobody sees is none");
    assert!(factor <= most, "{factor}");
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

#[test]
fn retries_of_one_hop_add_a_fifth_at_most() {
    outage(1, "never opens", 1.2);
}

// threat 45
#[test]
fn retries_of_three_hops_add_a_half_at_most() {
    outage(3, "never opens", 1.5);
}

#[test]
fn next_to_nothing_reaches_a_service_behind_open_breakers() {
    outage(1, "opens", 0.2);
    outage(3, "opens", 0.2);
}
