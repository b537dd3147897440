//! a circuit opens, probes, closes and opens again as it is told, and says so in each answer.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::millis;
use crate::pick;
use crate::say;
use crate::scene::Scene;
use crate::support::open_load::Ask;
use crate::support::open_load::Told;
use crate::support::open_load::Work;
use crate::support::process::lasts;
use crate::support::process::wait_until;

fn state(told: &Told) -> (u16, Option<&str>) {
    (told.status, told.field("x-circuit-breaker-state"))
}

/// Fails so often that it opens. Nothing reaches the application then.
fn open(scene: &Scene) -> Instant {
    scene.last().answers(500);
    let before = scene.last().count();
    for _ in 0..4 {
        assert_eq!(state(&scene.call("/fails")), (500, Some("closed")));
    }
    assert_eq!(state(&scene.call("/fails")), (500, Some("open")));
    let opened = Instant::now();
    for _ in 0..5 {
        let refused = scene.call("/refused");
        assert_eq!(state(&refused), (503, Some("open")));
        assert_eq!(refused.field("x-mesh-error"), Some("circuit_open"));
    }
    assert_eq!(scene.last().count(), before + 5);
    opened
}

#[test]
fn a_circuit_opens_at_five_failures_probes_with_three_and_reopens_at_one() {
    let timeout = pick(Duration::from_secs(3), Duration::from_mins(1));
    let mut scene = Scene::chain(
        1,
        &Work::Nothing,
        &json!({
            "circuit_breaker": { "timeout": format!("{}s", timeout.as_secs()) },
            "retry": { "max_attempts": 1 },
        }),
    );
    scene.start();
    open(&scene);
    // Its end is drawn from 98.5 to 101.5 % of that time.
    lasts(timeout + timeout / 50);
    // Calls that are let through now are probes. They hang, and all others are refused.
    scene.last().answers(200);
    scene.last().freeze();
    let before = scene.last().count();
    let outbound = scene.mesh.user.outbound;
    let ask = Ask::new("GET", "order-service", "/probe");
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let ask = ask.clone();
            let free = std::sync::Mutex::default();
            scene
                .runtime
                .spawn(async move { ask.call(outbound, &free).await.unwrap() })
        })
        .collect();
    wait_until("all but the probes are refused", || {
        calls.iter().filter(|call| call.is_finished()).count() == 7
    });
    scene.last().thaw();
    let told: Vec<_> = calls
        .into_iter()
        .map(|call| scene.runtime.block_on(call).unwrap())
        .collect();
    let passed: Vec<_> = told.iter().filter(|told| told.status == 200).collect();
    assert_eq!(scene.last().count(), before + passed.len());
    assert_eq!(passed.len(), 3);
    for refused in told.iter().filter(|told| told.status != 200) {
        assert_eq!(state(refused), (503, Some("half-open")));
    }
    // The third success closes it.
    let closed = passed.iter().filter(|told| state(told).1 == Some("closed"));
    assert_eq!(closed.count(), 1);
    assert_eq!(state(&scene.call("/closed")), (200, Some("closed")));

    let opened = open(&scene);
    let mut probe = scene.call("/fails");
    while probe.status == 503 && opened.elapsed() < timeout * 2 {
        lasts(Duration::from_millis(20));
        probe = scene.call("/fails");
    }
    let open_for = opened.elapsed();
    say(&format!(
        "R-5: opened at the 5th failure, 3 probes, closed at the 3rd success; open for {} of {}, reopened at 1 failure",
        millis(open_for),
        millis(timeout),
    ));
    assert_eq!(state(&probe), (500, Some("open")));
    assert_eq!(state(&scene.call("/refused")), (503, Some("open")));
    assert!(open_for.abs_diff(timeout) <= Duration::from_secs(1));
}
