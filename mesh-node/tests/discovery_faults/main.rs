//! What befalls a registry while calls go on: nobody who calls notices, and what changes is seen in time.
//!
//! By default each is a short test. `cargo xtask soak discovery` runs them in full, and then holds the figures against the
//! goals.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod registry;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use tokio::time::Instant;

use registry::Registry;
use scene::Scene;
use support::open_load as load;
use support::open_load::quantile;
use support::process::holds_within;
use support::process::lasts;
use support::process::wait_until;
use support::relay::Relay;
use tempfile::TempDir;

/// A figure of the short form or of the long one.
fn pick<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

fn is_long() -> bool {
    std::env::var_os("MESH_SOAK").is_some()
}

/// Calls a second: in the long form as many as the machine carries with half of what it can.
fn rate() -> u32 {
    let given = std::env::var("MESH_SOAK_RATE").ok();
    given.map_or(pick(40, 200), |text| text.parse().unwrap())
}

#[expect(clippy::print_stderr, reason = "the figures are for people")]
fn say(figure: &str) {
    eprintln!("{figure}");
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

macro_rules! with_each_registry {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[test] fn in_consul() { super::scenarios::$name("consul"); }
            #[test] fn in_etcd() { super::scenarios::$name("etcd"); }
        })*
    };
}

with_each_registry!(outage, empty, flaps, change, poison, start);

mod scenarios {
    use super::*;

    /// D-1: the registry is killed again and again.
    pub(super) fn outage(kind: &str) {
        let dir = TempDir::new().unwrap();
        let Some(mut registry) = Registry::start(kind, dir.path()) else {
            return;
        };
        let mut scene = Scene::new(&registry);
        registry.add("one", scene.port(0));
        scene.start();
        let load = scene.load(rate());
        let mut reconnected = Vec::new();
        for _ in 0..pick(2, 10) {
            registry.kill();
            lasts(pick(Duration::from_secs(2), Duration::from_mins(1)));
            registry.start_again();
            let back = Instant::now();
            registry.add("two", scene.port(1));
            wait_until("the registry is asked again", || {
                scene.app(1).between(back).is_some()
            });
            reconnected.push(scene.app(1).between(back).unwrap().0 - back);
            registry.remove("two");
            scene.wait_quiet(1);
        }
        let calls = scene.stop(load);
        reconnected.sort();
        say(&format!(
            "D-1 {kind}: {} outages, {} calls, {} failed, p99 {}; asked again after {} to {}",
            reconnected.len(),
            calls.made,
            calls.failed.len(),
            millis(calls.quantile(99)),
            millis(quantile(&reconnected, 0)),
            millis(quantile(&reconnected, 100)),
        ));
        calls.assert_none_failed();
        assert!(quantile(&reconnected, 100) <= Duration::from_secs(10));
    }

    /// D-2: everything is withdrawn.
    // threat 50
    pub(super) fn empty(kind: &str) {
        let dir = TempDir::new().unwrap();
        let Some(registry) = Registry::start(kind, dir.path()) else {
            return;
        };
        let mut scene = Scene::new(&registry);
        for (id, index) in [("one", 0), ("two", 1)] {
            registry.add(id, scene.port(index));
        }
        scene.start();
        let load = scene.load(rate());
        for _ in 0..pick(1, 5) {
            registry.remove("one");
            registry.remove("two");
            let emptied = scene.app(0).count() + scene.app(1).count();
            lasts(pick(Duration::from_secs(4), Duration::from_secs(50)));
            assert!(scene.app(0).count() + scene.app(1).count() > emptied);
            registry.add("one", scene.port(0));
            registry.add("two", scene.port(1));
            lasts(Duration::from_secs(1));
        }
        let calls = scene.stop(load);
        say(&format!(
            "D-2 {kind}: {} calls, {} failed",
            calls.made,
            calls.failed.len()
        ));
        calls.assert_none_failed();
    }

    /// D-3: ten endpoints come and go, 20 changes a second.
    // threat 50
    pub(super) fn flaps(kind: &str) {
        let dir = TempDir::new().unwrap();
        let Some(registry) = Registry::start(kind, dir.path()) else {
            return;
        };
        let mut scene = Scene::new(&registry);
        for (id, index) in [("one", 0), ("two", 1)] {
            registry.add(id, scene.port(index));
        }
        // Wires to an instance that works: what fails is the flapping's fault.
        let wires: Vec<_> = (0..10).map(|_| Relay::start(scene.port(0))).collect();
        scene.start();
        let load = scene.load(rate());
        let time = pick(Duration::from_secs(5), Duration::from_mins(1));
        let calm = scene.processor_time(|| lasts(time));
        let mut changes = 0_usize;
        let flapping = scene.processor_time(|| {
            let start = Instant::now();
            while start.elapsed() < time {
                let (wire, round) = (changes % wires.len(), changes / wires.len());
                let id = format!("flap-{wire}");
                if round % 2 == 0 {
                    registry.add(&id, wires[wire].port);
                } else {
                    registry.remove(&id);
                }
                changes += 1;
                let due = Duration::from_millis(50) * u32::try_from(changes).unwrap();
                lasts(due.saturating_sub(start.elapsed()));
            }
        });
        let calls = scene.stop(load);
        let share = |used: Duration| used.as_secs_f64() / time.as_secs_f64() * 100.0;
        say(&format!(
            "D-3 {kind}: {changes} changes in {time:?}, {} calls, {} failed; the caller's node uses {:.1} % of a core, \
             {:.1} % without",
            calls.made,
            calls.failed.len(),
            share(flapping),
            share(calm),
        ));
        calls.assert_none_failed();
        assert!(share(flapping) - share(calm) <= 20.0);
    }

    /// D-4: from a write to the first request that goes there, and to the last.
    pub(super) fn change(kind: &str) {
        let dir = TempDir::new().unwrap();
        let Some(registry) = Registry::start(kind, dir.path()) else {
            return;
        };
        let mut scene = Scene::new(&registry);
        scene.believe_at_once();
        registry.add("one", scene.port(0));
        scene.start();
        let load = scene.load(100);
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for round in 0..pick(12, 500) {
            // A name of its own: one that comes and goes would be left out.
            let id = format!("two-{round}");
            let written = Instant::now();
            registry.add(&id, scene.port(1));
            wait_until("a request goes to who is new", || {
                scene.app(1).between(written).is_some()
            });
            added.push(scene.app(1).between(written).unwrap().0 - written);
            let written = Instant::now();
            registry.remove(&id);
            scene.wait_quiet(1);
            let last = scene.app(1).between(written);
            removed.push(last.map_or(Duration::ZERO, |(_, last)| last - written));
        }
        let calls = scene.stop(load);
        for (what, times) in [("first", &mut added), ("last", &mut removed)] {
            times.sort();
            say(&format!(
                "D-4 {kind}: {} writes, to the {what} request p50 {}, p99 {}, at most {}",
                times.len(),
                millis(quantile(times, 50)),
                millis(quantile(times, 99)),
                millis(quantile(times, 100)),
            ));
            assert!(
                quantile(times, 99) <= pick(Duration::from_secs(2), Duration::from_millis(500))
            );
        }
        calls.assert_none_failed();
    }

    /// D-8: half of the list leads to a service that is another one, with a certificate that is good.
    // threat 48
    pub(super) fn poison(kind: &str) {
        let dir = TempDir::new().unwrap();
        let Some(registry) = Registry::start(kind, dir.path()) else {
            return;
        };
        let mut scene = Scene::new(&registry);
        let (impostor, app) = scene.impostor();
        registry.add("one", scene.port(0));
        registry.add("two", scene.port(1));
        scene.start();
        let load = scene.load(2 * rate());
        for index in 0..2 {
            registry.add(&format!("poison-{index}"), impostor.inbound);
        }
        let wanted = pick(500, 100_000);
        assert!(holds_within(Duration::from_mins(10), || load.made() >= wanted));
        let page = scene.services();
        let shown = page.matches(&format!(":{}", impostor.inbound)).count();
        assert!(shown >= 2, "the wrong ones are not in the list: {page}");
        let calls = scene.stop(load);
        say(&format!(
            "D-8 {kind}: {} calls, {} failed, {} reached the wrong service",
            calls.made,
            calls.failed.len(),
            app.count()
        ));
        assert_eq!(app.count(), 0);
        calls.assert_none_failed();
    }

    /// D-6: the caller's node loses its power, the registry is away, and what is on disk may be damaged.
    // threat 50
    pub(super) fn start(kind: &str) {
        let dir = TempDir::new().unwrap();
        let Some(mut registry) = Registry::start(kind, dir.path()) else {
            return;
        };
        let mut scene = Scene::new(&registry);
        registry.add("one", scene.port(0));
        scene.start();
        let kept = scene.kept_on_disk();
        registry.kill();
        let ready = scene.power_cut(&kept);
        assert_eq!(scene.call(), 200, "from disk");
        let (first, second) = kept.split_at(kept.len() / 2);
        let flipped = [first, &[second[0] ^ 1], &second[1..]].concat();
        let mut damaged = vec![flipped, first.to_vec()];
        if is_long() {
            damaged.extend([b"{}".to_vec(), Vec::new(), vec![0xff; 4096]]);
        }
        for bytes in &damaged {
            scene.power_cut(bytes);
            assert_eq!(scene.call(), 503, "{}", String::from_utf8_lossy(bytes));
            let log = scene.log();
            assert!(log.contains("discovery.cache"), "{log}");
        }
        registry.start_again();
        let back = Instant::now();
        wait_until("calls come through again", || scene.call() == 200);
        say(&format!(
            "D-6 {kind}: ready without the registry after {}, {} damaged lists refused, calls {} after its return",
            millis(ready),
            damaged.len(),
            millis(back.elapsed()),
        ));
    }
}
