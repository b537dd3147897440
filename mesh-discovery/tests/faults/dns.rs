//! DNS tells nobody of changes: they are seen when what is known has lived its time. Knot is killed and frozen meanwhile.

use std::sync::Arc;
use std::time::Duration;

use mesh_discovery::Driver;
use mesh_discovery::Registry;
use mesh_discovery::dns;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::follower::Follower;
use crate::follower::Truth;
use crate::plan::Plan;
use crate::plan::registry;
use crate::say;
use crate::support::knot::Knot;
use crate::support::process::holds_within;
use crate::support::process::lasts;

fn source(knot: &Knot, truth: &Arc<Truth>) -> (Registry, Driver) {
    let mut config = dns::Config::new("_mesh._tcp.{service}.mesh.test");
    config.servers = vec![knot.address().parse().unwrap()];
    config.min_ttl = TTL;
    dns::source(config, Arc::new(|| 500), registry("dns", truth)).unwrap()
}

/// One endpoint that stays, and one whose port changes.
fn records(port: u16) -> String {
    format!("_mesh._tcp.orders SRV 0 1 1 a\n_mesh._tcp.orders SRV 0 1 {port} a\na A 10.0.0.1\n")
}

#[test]
fn what_changes_in_dns_is_seen_within_its_ttl_and_a_second() {
    let dir = TempDir::new().unwrap();
    let Some(mut knot) = Knot::start(&records(2), dir.path()) else {
        return;
    };
    let plan = Plan::chosen();
    let truth = Arc::new(Truth::default());
    let follower = Follower::start("orders", &truth, || source(&knot, &truth));
    let has = |port: u16| follower.set().into_keys().eq([1, port]);
    assert!(holds_within(LIMIT, || has(2)), "{:?}", follower.report());
    let mut took = Vec::new();
    for round in 0..plan.zones {
        let port = 3 + round;
        // Not always at the same moment of the TTL.
        lasts(Duration::from_millis(137) * (u32::from(round) % 7));
        let written = Instant::now();
        truth.remove(port - 1, 0);
        knot.publish(&records(port));
        assert!(holds_within(LIMIT, || has(port)), "{:?}", follower.report());
        took.push(written.elapsed());
    }
    took.sort();
    let longest = took.last().copied().unwrap_or_default();
    say(&format!(
        "D-4 DNS, TTL 1 s: {} changes, seen after at most {:.0} ms",
        took.len(),
        longest.as_secs_f64() * 1e3
    ));
    assert!(longest <= TTL + plan.late, "{took:?}");

    let before = follower.set();
    knot.kill();
    lasts(plan.fault);
    assert_eq!(follower.set(), before, "the last good list stays");
    knot.start_again();
    let back = Instant::now();
    truth.remove(2 + plan.zones, 0);
    knot.publish(&records(2));
    assert!(holds_within(LIMIT, || has(2)), "{:?}", follower.report());
    say(&format!(
        "D-5 DNS, down for {:?}: seen {:.0} ms after its return",
        plan.fault,
        back.elapsed().as_secs_f64() * 1e3
    ));
}

const TTL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);
