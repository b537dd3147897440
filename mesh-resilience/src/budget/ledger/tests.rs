//! The books against a log of every request and retry.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn origin() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn within(log: &[Instant], now: Instant, window: Duration) -> usize {
    log.iter()
        .filter(|at| now.duration_since(**at) < window)
        .count()
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

proptest! {
    // Invariant S-7.
    // threat 45
    #[test]
    fn retries_never_exceed_their_part_of_the_requests(
        ratio in 0.0..1.5_f64,
        reserve in 0_u32..5,
        steps in prop::collection::vec((0_u64..400, 0_usize..12, 0_usize..12), 1..80),
    ) {
        let window = Duration::from_millis(997);
        let config =
            BudgetConfig::default().with_ratio(ratio).with_reserve(reserve).with_window(window);
        let mut ledger = Ledger::new(config);
        let (mut requests, mut retries) = (Vec::new(), Vec::new());
        let mut now = origin();
        for (wait, sent, repeated) in steps {
            now += Duration::from_millis(if wait > 390 { wait * 5 } else { wait });
            for _ in 0..sent {
                ledger.record_request(now);
                requests.push(now);
            }
            for _ in 0..repeated {
                if ledger.try_retry(now) {
                    retries.push(now);
                    let allowed = (as_f64(within(&requests, now, window)) * ratio).max(f64::from(reserve));
                    prop_assert!(as_f64(within(&retries, now, window)) <= allowed);
                }
            }
        }
    }
}

#[test]
fn a_burst_earns_its_part_and_a_quiet_service_its_reserve() {
    let now = origin();
    let mut ledger = Ledger::new(BudgetConfig::default());
    assert_eq!((0..100).filter(|_| ledger.try_retry(now)).count(), 10);
    for _ in 0..1_000 {
        ledger.record_request(now);
    }
    // Goal R-4: 1.2 times the load of one hop in a total outage.
    assert_eq!((0..1_000).filter(|_| ledger.try_retry(now)).count(), 190);
    let spent = BudgetSnapshot {
        requests: 1_000,
        retries: 200,
        allowed: 200,
    };
    assert_eq!(ledger.snapshot(now), spent);
    let later = now + Duration::from_secs(11);
    assert_eq!((0..100).filter(|_| ledger.try_retry(later)).count(), 10);
}

#[test]
fn a_clock_that_jumps_far_does_no_harm() {
    let mut now = origin();
    let mut ledger = Ledger::new(BudgetConfig::default().with_window(Duration::from_nanos(1)));
    for _ in 0..3 {
        ledger.record_request(now);
        assert!(ledger.try_retry(now));
        now += Duration::from_hours(24 * 365 * 100);
    }
    assert!(ledger.try_retry(origin()));
}
