//! one of three instances dies, or goes silent. Nobody who calls notices, and it gets its share again when it
//! is back.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::millis;
use crate::pick;
use crate::say;
use crate::scene::Scene;
use crate::support::process::holds_within;
use crate::support::process::lasts;
use crate::support::relay::Flow;
use crate::support::relay::Relay;

/// Calls a second.
const RATE: u32 = 60;

/// Closes every connection to a port, and counts them.
#[derive(Debug)]
struct Closes {
    port: u16,
    count: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Closes {
    fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (count, ends) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, ended) = (Arc::clone(&count), Arc::clone(&ends));
        let serving = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                drop(stream);
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            port,
            count,
            ends,
            serving,
        }
    }

    /// Gives the port back, and how many connections there were.
    fn end(self) -> usize {
        self.ends.store(true, Ordering::SeqCst);
        drop(std::net::TcpStream::connect(("127.0.0.1", self.port)));
        self.serving.join().unwrap();
        self.count.load(Ordering::SeqCst)
    }
}

fn is_ejected(scene: &Scene, port: u16) -> bool {
    let page = scene.mesh.user.admin("/services/order-service");
    let page = page.expect(200).json();
    let mut list = page["endpointList"].as_array().unwrap().iter();
    let address = format!("127.0.0.1:{port}");
    list.any(|endpoint| endpoint["address"] == address && endpoint["state"] == "ejected")
}

/// Short: an ejection of 6 s in place of 30 s, in which a node that is not optimised starts on a busy machine.
fn ejection() -> Duration {
    pick(Duration::from_secs(6), Duration::from_secs(30))
}

/// Time in service after which an ejection is forgiven, so that the next one is not longer.
fn wait_forgiven(round: usize, rounds: usize) {
    if round + 1 < rounds {
        lasts(Duration::from_secs(32));
    }
}

//
#[test]
fn nobody_notices_that_one_of_three_dies() {
    let base = ejection();
    let mut scene = Scene::instances(
        3,
        &json!({
            // In turn: `least_request`, the default, leaves a failing endpoint so few calls that at this rate it takes it more
            // than 5 s to see five of them fail.
            "load_balancing": { "policy": "round_robin" },
            "outlier_ejection": { "base": format!("{}s", base.as_secs()) },
            "retry": { "initial_delay": "20ms" },
        }),
    );
    scene.start();
    let load = scene.load(RATE);
    let (mut most_errors, mut most_back) = (0, Duration::ZERO);
    let rounds = pick(1, 50);
    for round in 0..rounds {
        lasts(Duration::from_secs(2));
        let port = scene.mesh.order.inbound;
        scene.mesh.order.process().kill();
        // In its place somebody who counts the attempts: each is an error.
        let closes = Closes::start(port);
        let limit = Duration::from_secs(10);
        assert!(
            holds_within(limit, || is_ejected(&scene, port)),
            "not ejected within {limit:?}: {} {}",
            closes.count.load(Ordering::SeqCst),
            scene.mesh.user.admin("/services/order-service").text()
        );
        most_errors = most_errors.max(closes.end());
        scene.mesh.order.start();
        let back = Instant::now();
        let limit = base + Duration::from_secs(5);
        let is_back = || scene.apps[0].between(back).is_some();
        assert!(holds_within(limit, is_back), "not back within {limit:?}");
        most_back = most_back.max(back.elapsed());
        wait_forgiven(round, rounds);
    }
    let calls = scene.stop(load);
    say(&format!(
        "R-1: {rounds} kills, {} calls, {} failed; ejected after {most_errors} errors at most, back {} after recovery at most, \
         with ejections of {base:?}",
        calls.made,
        calls.failed.len(),
        millis(most_back),
    ));
    calls.assert_none_failed();
    assert!((1..=5).contains(&most_errors), "{most_errors}");
}

//
#[test]
fn nobody_notices_that_one_of_three_goes_silent() {
    let per_try = Duration::from_millis(300);
    let base = ejection();
    let mut scene = Scene::instances(
        3,
        &json!({
            // In turn: `least_request`, the default, leaves a failing endpoint so few calls that at this rate it takes it more
            // than 5 s to see five of them fail.
            "load_balancing": { "policy": "round_robin" },
            "outlier_ejection": { "base": format!("{}s", base.as_secs()) },
            "retry": { "initial_delay": "20ms", "per_try_timeout": "300ms" },
        }),
    );
    let wire = Relay::start(scene.mesh.order.inbound);
    let [second, third] = [scene.others[0].inbound, scene.others[1].inbound];
    let user = &mut scene.mesh.user;
    user.discover("order-service", &[wire.port, second, third]);
    scene.start();
    let load = scene.load(RATE);
    let mut most = Duration::ZERO;
    let rounds = pick(1, 10);
    for round in 0..rounds {
        lasts(Duration::from_secs(2));
        wire.let_pass(Flow::None);
        let silent = Instant::now();
        let limit = Duration::from_secs(5);
        assert!(
            holds_within(limit, || is_ejected(&scene, wire.port)),
            "not ejected within {limit:?}: {}",
            scene.mesh.user.admin("/services/order-service").text()
        );
        most = most.max(silent.elapsed());
        lasts(Duration::from_secs(2));
        wire.let_pass(Flow::Both);
        let back = Instant::now();
        let limit = base + Duration::from_secs(5);
        let is_back = || {
            scene.apps[0]
                .between(back + Duration::from_millis(500))
                .is_some()
        };
        assert!(holds_within(limit, is_back), "not back within {limit:?}");
        wait_forgiven(round, rounds);
    }
    let calls = scene.stop(load);
    let p99 = calls.quantile(99);
    say(&format!(
        "R-2: {rounds} times silent, {} calls, {} failed, p99 {} with {per_try:?} for each attempt; ejected after {} at most",
        calls.made,
        calls.failed.len(),
        millis(p99),
        millis(most),
    ));
    calls.assert_none_failed();
    // The goal is 50 ms more than an attempt. Programs that are not optimised, on a machine that does other things, get
    // more: of a few hundred calls the five slowest decide.
    let more = Duration::from_millis(if cfg!(debug_assertions) { 300 } else { 50 });
    assert!(p99 <= per_try + more, "{p99:?}");
}
