//! Rise, fall and schedule, on a clock that the tests turn.

use std::sync::Arc;
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;

fn endpoints(ports: &[u16]) -> Endpoints {
    let list = ports
        .iter()
        .map(|port| Endpoint::new("10.0.0.7".parse().unwrap(), *port))
        .collect();
    Endpoints::new(list, 1).unwrap()
}

/// The random number that leaves the interval as it is.
const STEADY: u64 = 500;

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Feeds outcomes (`+` and `-`) and gives the status after each (`u`, `h`, `d`).
fn trace(outcomes: &str) -> String {
    let mut check = Check::new();
    let after = |outcome| {
        check.record(&HealthConfig::default(), outcome == '+');
        match check.status() {
            Status::Unknown => 'u',
            Status::Healthy => 'h',
            Status::Unhealthy => 'd',
        }
    };
    outcomes.chars().map(after).collect()
}

#[test]
fn rises_after_two_and_falls_after_three() {
    for (outcomes, expected) in [
        ("+", "h"),
        ("---", "uud"),
        ("-+---", "uhhhd"),
        ("+--+--+", "hhhhhhh"),
        ("+---", "hhhd"),
        ("---+-++", "uuddddh"),
        ("---++---", "uuddhhhd"),
    ] {
        assert_eq!(trace(outcomes), expected, "{outcomes}");
    }
}

#[test]
fn probes_each_endpoint_once_an_interval() {
    let (t0, mut table) = (start(), CheckTable::new(HealthConfig::default()).unwrap());
    let list = endpoints(&[1, 2]);
    table.update(t0, &list, 0);
    assert_eq!(table.take_due(t0, 9), [Arc::clone(&list[0])]);
    assert_eq!(table.next_due(), Some(t0 + Duration::from_millis(10)));
    let later = t0 + Duration::from_millis(10);
    assert_eq!(table.take_due(later, 9), [Arc::clone(&list[1])]);
    assert_eq!((table.next_due(), table.take_due(later, 9)), (None, vec![]));

    assert_eq!(
        table.record(later, &list[0], Ok(()), STEADY),
        Some(Status::Healthy)
    );
    assert_eq!(table.next_due(), Some(later + INTERVAL));
    assert_eq!(table.record(later, &list[0], Err("refused"), STEADY), None);
}

#[test]
fn spreads_many_endpoints_over_the_interval() {
    let (t0, mut table) = (start(), CheckTable::new(HealthConfig::default()).unwrap());
    table.update(t0, &endpoints(&(1..=10_000).collect::<Vec<_>>()), 0);
    assert_eq!(
        table
            .take_due(t0 + Duration::from_secs(5), usize::MAX)
            .len(),
        5001
    );
    assert_eq!(table.take_due(t0 + Duration::from_secs(10), 64).len(), 64);
}

#[test]
fn probes_of_many_callers_fall_apart() {
    let (t0, mut table) = (start(), CheckTable::new(HealthConfig::default()).unwrap());
    let list = endpoints(&[1]);
    table.update(t0, &list, 999);
    let first = table.next_due().unwrap();
    assert_eq!(first, t0 + Duration::from_millis(999));
    for (random, millis) in [(0, 9_000), (500, 10_000), (999, 10_990), (1_000, 9_000)] {
        table.take_due(first + INTERVAL * 9, 1);
        table.record(first, &list[0], Ok(()), random);
        assert_eq!(
            table.next_due(),
            Some(first + Duration::from_millis(millis))
        );
    }
}

#[test]
fn tells_since_when_and_why() {
    let (t0, mut table) = (start(), CheckTable::new(HealthConfig::default()).unwrap());
    let list = endpoints(&[1]);
    table.update(t0, &list, 0);
    for _ in 0..3 {
        table.take_due(t0 + INTERVAL * 9, 1);
        table.record(t0 + INTERVAL, &list[0], Err("refu\u{1b}sed"), STEADY);
    }
    let found = &table.report(&list)[0];
    assert_eq!(found.status, Status::Unhealthy);
    assert_eq!(
        (found.since, found.last_probe),
        (Some(t0 + INTERVAL), Some(t0 + INTERVAL))
    );
    assert_eq!(found.reason.as_deref(), Some("refused"));
}

#[test]
fn keeps_what_is_known_unless_the_endpoint_moves() {
    let (t0, mut table) = (start(), CheckTable::new(HealthConfig::default()).unwrap());
    let list = endpoints(&[1]);
    table.update(t0, &list, 0);
    table.take_due(t0, 1);
    table.record(t0, &list[0], Ok(()), STEADY);
    table.update(t0, &endpoints(&[1, 2]), 0);
    assert_eq!(table.status(&list[0].id), Status::Healthy);

    let moved = Endpoint {
        port: 3,
        ..Endpoint::clone(&list[0])
    };
    table.update(t0, &Endpoints::new(vec![moved], 2).unwrap(), 0);
    assert_eq!(table.status(&list[0].id), Status::Unknown);
    table.take_due(t0, 1);
    assert_eq!(
        table.record(t0, &list[0], Ok(()), STEADY),
        None,
        "an answer of the old place"
    );
}

// threat 50
#[test]
fn uses_all_endpoints_when_none_is_healthy() {
    let (mut now, mut table) = (start(), CheckTable::new(HealthConfig::default()).unwrap());
    let list = endpoints(&[1, 2]);
    table.update(now, &list, 0);
    for _ in 0..3 {
        now += INTERVAL;
        for endpoint in table.take_due(now, 9) {
            let outcome = if endpoint.port == 1 {
                Ok(())
            } else {
                Err("refused")
            };
            table.record(now, &endpoint, outcome, STEADY);
        }
    }
    assert_eq!(*table.usable(&list, 7), [Arc::clone(&list[0])]);
    for _ in 0..3 {
        now += INTERVAL;
        for endpoint in table.take_due(now, 9) {
            table.record(now, &endpoint, Err("refused"), STEADY);
        }
    }
    assert_eq!(
        (
            table.usable(&list, 8).len(),
            table.usable(&list, 8).revision()
        ),
        (2, 8)
    );
}

#[test]
fn refuses_times_that_make_no_sense() {
    let check = |config: HealthConfig| CheckTable::new(config).is_ok();
    assert!(check(
        HealthConfig::default().with_interval(Duration::from_millis(100))
    ));
    assert!(!check(
        HealthConfig::default().with_interval(Duration::from_millis(99))
    ));
    assert!(!check(
        HealthConfig::default().with_interval(Duration::from_secs(3601))
    ));
    assert!(!check(HealthConfig::default().with_timeout(Duration::ZERO)));
    assert!(!check(
        HealthConfig::default().with_timeout(Duration::from_secs(11))
    ));
}

proptest! {
    #[test]
    fn status_follows_the_last_run_of_equal_outcomes(
        outcomes in vec(any::<bool>(), 1..40), rise in 1_u32..5, fall in 1_u32..5,
    ) {
        let thresholds = [rise, fall].map(|n| NonZeroU32::new(n).unwrap());
        let config = HealthConfig::default().with_thresholds(thresholds[0], thresholds[1]);
        let mut check = Check::new();
        let (mut run, mut last) = (0, None);
        for outcome in outcomes {
            run = if last == Some(outcome) { run + 1 } else { 1 };
            last = Some(outcome);
            let before = check.status();
            let changed = check.record(&config, outcome);
            prop_assert_eq!(changed, Some(check.status()).filter(|status| *status != before));
            let expected = match (outcome, before) {
                (true, Status::Unknown) => Status::Healthy,
                (true, _) if run >= rise => Status::Healthy,
                (false, _) if run >= fall => Status::Unhealthy,
                _ => before,
            };
            prop_assert_eq!(check.status(), expected);
        }
    }
}
