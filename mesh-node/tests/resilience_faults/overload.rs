//! too many calls, or an application that stands still. What can be answered is answered, the rest is
//! refused at once, and all is well again soon afterwards.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::millis;
use crate::pick;
use crate::say;
use crate::scene::Scene;
use crate::support::open_load::App;
use crate::support::open_load::Ask;
use crate::support::open_load::Load;
use crate::support::open_load::Work;
use crate::support::process::lasts;
use crate::support::process::wait_until;

/// An application behind two others carries 90 % of what it can, and stands still for a while.
fn stall(name: &str, resilience: &Value) {
    let mut scene = Scene::chain(3, &Work::Takes(Duration::from_millis(80), 4), resilience);
    scene.start();
    // It can do 50 a second.
    let load = scene.load(45);
    lasts(Duration::from_secs(2));
    scene.last().freeze();
    lasts(pick(Duration::from_secs(3), Duration::from_secs(10)));
    scene.last().thaw();
    let thawed = Instant::now();
    let recovered = thawed + Duration::from_secs(10);
    lasts(Duration::from_secs(14));
    let end = Instant::now();
    lasts(Duration::from_secs(1));
    let calls = scene.stop(load);
    let (good, all) = calls.count(200, recovered, end);
    let second = Duration::from_secs(1);
    let by_second: Vec<_> = (0..14_u32)
        .map(|at| {
            calls
                .count(200, thawed + second * at, thawed + second * (at + 1))
                .0
        })
        .collect();
    say(&format!(
        "R-3 {name}: {good} of {all} good from 10 s after the stall; good in each second after it {by_second:?}"
    ));
    assert!(all > 100, "{all}");
    assert!(good * 100 >= all * 99, "{good} of {all}");
}

// With a breaker that stays open for less than the 10 s: the default of 60 s is longer than the goal allows for, where
// a stall opens it.
#[test]
fn calls_succeed_soon_after_a_stall_that_opened_breakers() {
    let short = json!({ "timeout": "2s", "circuit_breaker": { "timeout": "2s" } });
    stall("short timeouts", &short);
}

//
#[test]
fn calls_succeed_soon_after_a_stall_with_what_is_set_by_default() {
    stall("defaults", &json!({}));
}

//
#[test]
fn an_overloaded_application_answers_what_it_can_and_its_node_refuses_the_rest() {
    // The breaker is the default one: what the node refuses is no failure of the service.
    let caller = json!({ "retry": { "max_attempts": 1 } });
    let mut scene = Scene::chain(1, &Work::Takes(Duration::from_millis(50), 4), &caller);
    let shedding = json!({ "resilience": { "load_shedding": { "enabled": true, "initial_limit": 10, "max_limit": 50 } } });
    scene.mesh.order.configure(shedding);
    scene.start();
    // It can do 80 a second.
    let load = scene.load(40);
    lasts(pick(Duration::from_secs(4), Duration::from_secs(10)));
    let before = scene.stop(load);
    before.assert_none_failed();
    let baseline = before.quantile(99);

    let load = scene.load(240);
    lasts(Duration::from_secs(2));
    let start = Instant::now();
    lasts(pick(Duration::from_secs(5), Duration::from_mins(1)));
    let end = Instant::now();
    let over = scene.stop(load);
    let stopped = Instant::now();
    let load = scene.load(40);
    lasts(Duration::from_secs(4));
    let until = Instant::now();
    lasts(Duration::from_secs(1));
    let after = scene.stop(load);

    let (good, _) = over.count(200, start, end);
    let (shed, all) = over.count(503, start, end);
    let goodput = rate(good, end - start);
    let (well, due) = after.count(200, stopped + Duration::from_secs(2), until);
    let (admitted, refused) = (
        over.quantile_within(99, start, end),
        over.quantile_of(503, 99),
    );
    say(&format!(
        "R-6: baseline p99 {}; at 3x {good} of {all} answered, {goodput:.1} a second of 80, p99 {}; {shed} refused, p50 {}, \
         p99 {}; from 2 s after it {well} of {due} good; others as {:?}",
        millis(baseline),
        millis(admitted),
        millis(over.quantile_of(503, 50)),
        millis(refused),
        over.failed.iter().find(|failed| !failed.contains("503 ")),
    ));
    assert_eq!(well, due);
    assert!(good > 0 && shed > 0, "{good} {shed}");
    // The figures are held against the goals by optimised programs only: of others the nodes themselves are too slow.
    if !cfg!(debug_assertions) {
        assert!(goodput >= 72.0, "{goodput}");
        assert!(admitted <= baseline * 3, "{admitted:?}");
        assert!(refused <= Duration::from_millis(5), "{refused:?}");
    }
}

fn rate(count: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap()) / time.as_secs_f64()
}

//
#[test]
fn a_service_that_is_stuck_takes_nothing_from_another() {
    let mut scene = Scene::instances(1, &json!({ "retry": { "max_attempts": 1 } }));
    let stuck = App::working(&scene.runtime, Work::Takes(Duration::from_mins(2), 1000));
    let mut node = scene.mesh.node("payment-service", "payment");
    let policy = scene.mesh.order.config["policy"].clone();
    node.serve(stuck.port)
        .configure(json!({ "policy": policy }));
    let at = |id: &str, port: u16| json!({ "id": id, "host": "127.0.0.1", "port": port });
    let services = [
        at("order-service", scene.mesh.order.inbound),
        at("payment-service", node.inbound),
    ];
    let sources = json!([ { "mode": "static", "services": services } ]);
    scene
        .mesh
        .user
        .configure(json!({ "discovery": { "sources": sources } }));
    scene.others.push(node);
    scene.start();
    let p99 = |time| {
        let load = scene.load(50);
        lasts(time);
        let calls = scene.stop(load);
        calls.assert_none_failed();
        calls.quantile(99)
    };
    let time = pick(Duration::from_secs(5), Duration::from_secs(10));
    let alone = p99(time);
    let ask = Ask::new("GET", "payment-service", "/stuck");
    let outbound = scene.mesh.user.outbound;
    let load = Load::of(&scene.runtime, outbound, 100, &ask);
    wait_until("more are refused", || load.made() >= 10);
    let beside = p99(time);
    assert_eq!(stuck.count(), 100);
    // With it end the calls that wait for it.
    drop(stuck);
    let calls = scene.stop(load);
    let overloaded = calls
        .failed
        .iter()
        .filter(|failed| failed.contains("overloaded"));
    let refused = calls.quantile_of(503, 50);
    say(&format!(
        "R-8: 100 at the stuck service, {} refused, half of them within {}; p99 of the other {} beside it, {} alone",
        overloaded.count(),
        millis(refused),
        millis(beside),
        millis(alone),
    ));
    // The goal is 1.2 times as much. Of a few hundred calls the slowest three decide, which 20 ms stand for.
    assert!(
        beside <= alone * 6 / 5 + Duration::from_millis(20),
        "{beside:?}"
    );
    assert!(refused <= Duration::from_millis(50), "{refused:?}");
}
