//! The limiter against a log of every admitted call, on a virtual clock.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mesh_resilience::limit::{Bucket, LimitConfig, LimitLayer, Limited, Limiter, Verdict, Window};
use mesh_resilience::random::{Random, SplitMix64};
use mesh_resilience::{BoxError, ConfigError, find_cause};
use proptest::prelude::*;
use tower::{Layer, Service, ServiceExt, service_fn};

use reference::Reference;

#[path = "reference/limit.rs"]
mod reference;

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn window(requests: u32, period: Duration) -> Window {
    Window::new(NonZeroU32::new(requests).unwrap(), period)
}

fn limiter(windows: Vec<Window>) -> Limiter {
    Limiter::new(&LimitConfig::default().with_windows(windows)).unwrap()
}

/// Calls admitted in the `stretch` before and at `now`.
fn recent(log: &[Instant], now: Instant, stretch: Duration) -> usize {
    log.iter()
        .rev()
        .take_while(|at| now.duration_since(**at) < stretch)
        .count()
}

/// Checks one verdict against the log of admitted calls, and adds to it.
fn judge(windows: &[Window], log: &mut Vec<Instant>, now: Instant, verdict: &Verdict) {
    if verdict.allowed {
        log.push(now);
        for window in windows {
            let admitted = recent(log, now, window.period);
            assert!(
                admitted <= window.max_requests.get() as usize,
                "{admitted} in {window:?}"
            );
        }
        return;
    }
    // Refused only if some window was as good as full; two ticks of slack.
    let is_full = windows.iter().any(|window| {
        let least = (window.max_requests.get() * 99).div_ceil(100) as usize;
        recent(
            log,
            now,
            window.period + window.period / 500 + Duration::from_micros(2),
        ) >= least
    });
    assert!(
        is_full,
        "refused without need after {} calls: {verdict:?}",
        log.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // Goal R-7.
    // threat 47
    #[test]
    fn never_admits_too_many_and_never_refuses_without_need(
        first in (1_u32..40, 1_u64..3_000),
        second in (1_u32..400, 1_u64..60_000),
        steps in prop::collection::vec((0_u64..40_000_000, 1_usize..60), 1..60),
    ) {
        let windows =
            vec![window(first.0, Duration::from_millis(first.1)), window(second.0, Duration::from_millis(second.1))];
        let limiter = limiter(windows.clone());
        let mut log = Vec::new();
        let mut now = start();
        for (micros, calls) in steps {
            // Long waits are rare and short ones common.
            now += Duration::from_micros(if micros % 5 == 0 { micros } else { micros % 20_000 });
            for _ in 0..calls {
                judge(&windows, &mut log, now, &limiter.check("key", now));
            }
        }
    }

    #[test]
    fn the_wait_it_names_is_enough_and_none_too_long(calls in 1_u32..300, spread in 0_u64..150) {
        let limiter = limiter(vec![window(calls, Duration::from_mins(1))]);
        let mut now = start();
        let refused = loop {
            let verdict = limiter.check(&7, now);
            if !verdict.allowed {
                break verdict;
            }
            now += Duration::from_millis(spread);
        };
        prop_assert_eq!(refused.remaining, 0);
        prop_assert!(refused.retry_after > Duration::ZERO && refused.retry_after <= refused.reset_after);
        prop_assert!(!limiter.check(&7, now + refused.retry_after.saturating_sub(Duration::from_micros(1))).allowed);
        prop_assert!(limiter.check(&7, now + refused.retry_after).allowed);
    }
}

#[test]
fn a_hundred_a_minute_and_ten_thousand_an_hour_hold_for_a_greedy_caller() {
    let windows = LimitConfig::default().windows;
    let limiter = Limiter::new(&LimitConfig::default()).unwrap();
    let begin = start();
    let mut log = Vec::new();
    // Ten calls a second for two hours, of which 100 a minute pass until the hour is used up.
    for tick in 0..72_000_u32 {
        let now = begin + Duration::from_millis(100) * tick;
        let verdict = limiter.check("greedy", now);
        if verdict.allowed {
            log.push(now);
        }
        assert!(recent(&log, now, windows[0].period) <= 100);
    }
    let in_first_hour = log
        .iter()
        .filter(|at| at.duration_since(begin) < Duration::from_hours(1))
        .count();
    assert!((5_900..=6_000).contains(&in_first_hour), "{in_first_hour}");
}

#[test]
fn ten_thousand_an_hour_are_admitted_but_not_more() {
    let windows = vec![window(10_000, Duration::from_hours(1))];
    let limiter = limiter(windows.clone());
    let begin = start();
    let mut log = Vec::new();
    for tick in 0..60_000_u32 {
        let now = begin + Duration::from_millis(150) * tick;
        if limiter.check("k", now).allowed {
            log.push(now);
        }
    }
    for first in (0..log.len()).step_by(97) {
        let end = log[first] + Duration::from_hours(1);
        assert!(log[first..].iter().take_while(|at| **at < end).count() <= 10_000);
    }
    // Two and a half hours of greed: 10,000 in each hour but for the rounding.
    assert!((24_500..=30_000).contains(&log.len()), "{}", log.len());
}

#[test]
fn a_verdict_counts_down_the_tightest_window() {
    let limiter = limiter(vec![
        window(3, Duration::from_secs(1)),
        window(4, Duration::from_mins(1)),
    ]);
    let now = start();
    let left: Vec<_> = (0..4)
        .map(|_| limiter.check("k", now))
        .map(|v| (v.allowed, v.limit, v.remaining))
        .collect();
    assert_eq!(
        left,
        [(true, 3, 2), (true, 3, 1), (true, 3, 0), (false, 3, 0)]
    );
    let later = limiter.check("k", now + Duration::from_secs(2));
    assert_eq!((later.allowed, later.limit, later.remaining), (true, 4, 0));
    assert_eq!(later.reset_after, Duration::from_mins(1));
    assert!(limiter.check("another", now).allowed, "keys are apart");
}

#[test]
fn a_key_that_rests_for_long_begins_anew() {
    let limiter = limiter(vec![window(150, Duration::from_secs(1))]);
    let mut now = start();
    for rest in [1, 2, 3, 65_536, 1 << 32, 1 << 44] {
        assert!(
            (0..150).all(|_| limiter.check("k", now).allowed),
            "before {rest}"
        );
        assert!(!limiter.check("k", now).allowed);
        now += Duration::from_micros(rest).max(Duration::from_secs(1));
    }
}

#[test]
fn a_hundred_thousand_keys_fit_32_mebibytes_and_no_more_are_kept() {
    let limiter = Limiter::new(&LimitConfig::default()).unwrap();
    let now = start();
    for key in 0..100_000_u32 {
        limiter.check(&key, now);
    }
    assert_eq!(limiter.keys(), 100_000);
    for key in 100_000..110_000_u32 {
        limiter.check(&key, now);
    }
    assert_eq!(limiter.keys(), 100_000);
    assert!(limiter.memory() <= 32 << 20, "{} bytes", limiter.memory());
}

#[test]
fn a_full_table_forgets_old_keys_before_new_ones() {
    let config = LimitConfig::default()
        .with_windows(vec![window(1, Duration::from_mins(1))])
        .with_max_keys(NonZeroUsize::new(1_000).unwrap());
    let limiter = Limiter::new(&config).unwrap();
    let begin = start();
    for key in 0..1_000_u32 {
        limiter.check(&key, begin + Duration::from_millis(u64::from(key)));
    }
    for key in 1_000..1_400_u32 {
        limiter.check(&key, begin + Duration::from_secs(2));
    }
    let remembered =
        (900..1_000_u32).filter(|key| !limiter.check(key, begin + Duration::from_secs(3)).allowed);
    assert!(
        remembered.count() >= 80,
        "the youngest of the old keys are mostly still known"
    );
}

#[test]
fn a_clock_that_goes_back_admits_no_more() {
    let limiter = limiter(vec![window(5, Duration::from_secs(1))]);
    let now = start() + Duration::from_secs(10);
    assert!(limiter.check("other", start()).allowed);
    let admitted = (0..20).filter(|i| {
        limiter
            .check(
                "k",
                now.checked_sub(Duration::from_millis(100 * i)).unwrap(),
            )
            .allowed
    });
    assert_eq!(admitted.count(), 5);
}

#[test]
fn windows_out_of_range_are_refused() {
    let none = Limiter::new(&LimitConfig::default().with_windows(vec![])).unwrap_err();
    assert_eq!(none, ConfigError::Windows { windows: 0, max: 4 });
    for bad in [
        window(7_000_000, Duration::from_secs(1)),
        window(1, Duration::ZERO),
    ] {
        Limiter::new(&LimitConfig::default().with_windows(vec![bad])).unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_refuses_by_key_and_lets_pass_again() {
    let limiter = Arc::new(limiter(vec![window(2, Duration::from_mins(1))]));
    let echo = service_fn(|name: &'static str| async move { Ok::<_, BoxError>(name) });
    let mut service = LimitLayer::new(limiter, |name: &&'static str| *name).layer(echo);
    for _ in 0..2 {
        assert_eq!(
            service.ready().await.unwrap().call("ann").await.unwrap(),
            "ann"
        );
    }
    let refused = service
        .ready()
        .await
        .unwrap()
        .call("ann")
        .await
        .unwrap_err();
    let cause = find_cause::<Limited>(&refused).unwrap();
    assert_eq!(cause.limit, 2);
    service.ready().await.unwrap().call("bob").await.unwrap();
    tokio::time::advance(cause.retry_after).await;
    service.ready().await.unwrap().call("ann").await.unwrap();
}

/// A trace of random limits, pauses and costs against the reference; some calls come by `peek`, which counts nothing.
fn trace(seed: u64) {
    let random = SplitMix64::new(seed);
    let number = |most: usize| u32::try_from(1 + random.below(most)).unwrap();
    let span = |most: usize| Duration::from_micros(1_000 * u64::from(number(most)));
    let mut config = LimitConfig::default().with_windows(vec![
        window(number(40), span(3_000)),
        window(number(700), span(60_000)),
    ]);
    if random.below(2) == 0 {
        let (rate, burst) = (number(1_000), number(200));
        let bucket = Bucket::new(
            NonZeroU32::new(rate).unwrap(),
            NonZeroU32::new(burst).unwrap(),
        );
        config = config.with_bucket(bucket);
        if random.below(4) == 0 {
            config.windows.clear();
        }
    }
    let config = config.with_max_keys(NonZeroUsize::MIN);
    let limiter = Limiter::new(&config).unwrap();
    let (begin, mut now) = (start(), 0_u64);
    limiter.peek("key", begin);
    let mut reference = Reference::new(&config, 1);
    for _ in 0..40 {
        now += match random.below(8) {
            0 => 1_000 * u64::from(number(80_000_000)),
            1 => 0,
            _ => u64::from(number(30_000_000)),
        };
        let at = begin + Duration::from_nanos(now);
        for _ in 0..number(4) {
            let cost = if random.below(4) == 0 { number(30) } else { 1 };
            let peeked = limiter.peek("key", at);
            let verdict = if cost == 1 {
                limiter.check("key", at)
            } else {
                limiter.check_n("key", NonZeroU32::new(cost).unwrap(), at)
            };
            assert!(
                cost > 1 || peeked.allowed == verdict.allowed,
                "{peeked:?} {verdict:?}"
            );
            reference.judge(now, cost, &verdict);
        }
    }
}

// Goal R-7.
// threat 47
#[test]
fn every_promise_is_kept_over_random_traces() {
    // `MESH_TRACES` of them, where somebody has the time; each has some 100 calls.
    let traces = std::env::var("MESH_TRACES").map_or(300, |text| text.parse().unwrap());
    for seed in 0..traces {
        trace(seed);
    }
}

// Goal R-7.
// threat 47
#[test]
fn sixteen_threads_are_admitted_not_one_call_too_many() {
    let bucket = Bucket::new(NonZeroU32::MIN, NonZeroU32::new(3_000).unwrap());
    let config = LimitConfig::default()
        .with_windows(vec![
            window(90, Duration::from_mins(1)),
            window(5_000, Duration::from_hours(1)),
        ])
        .with_bucket(bucket.with_period(Duration::from_hours(1)));
    // More keys than it remembers: `greedy` is never the oldest of eight.
    let limiter = Limiter::new(&config.with_max_keys(NonZeroUsize::new(64).unwrap())).unwrap();
    let begin = start();
    let ticket = AtomicU64::new(0);
    let admitted: Vec<(u64, u32)> = std::thread::scope(|scope| {
        let greedy = |thread: u64| {
            let mut admitted = Vec::new();
            for call in 0..4_000 {
                let at = ticket.fetch_add(20, Relaxed);
                let now = begin + Duration::from_millis(at);
                let cost = if call % 7 == 0 { 3 } else { 1 };
                let verdict = limiter.check_n("greedy", NonZeroU32::new(cost).unwrap(), now);
                if verdict.allowed {
                    admitted.push((at, cost));
                }
                if call % 100 == 0 {
                    limiter.check(&(thread, call), now);
                }
            }
            admitted
        };
        let threads: Vec<_> = (0..16)
            .map(|thread| scope.spawn(move || greedy(thread)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    // Twenty minutes of 16 threads: the minutes allow no more, and nearly as much.
    let all: u32 = admitted.iter().map(|(_, cost)| cost).sum();
    assert!((1_700..=22 * 90).contains(&all), "{all}");
}

// Goal R-7.
// threat 47
#[test]
fn sixteen_threads_at_one_moment_use_up_the_limit_and_no_more() {
    for round in 0..20 {
        let limiter = limiter(vec![window(90, Duration::from_mins(1))]);
        let now = start();
        let admitted: usize = std::thread::scope(|scope| {
            let calls = || {
                (0..50)
                    .filter(|_| limiter.check(&round, now).allowed)
                    .count()
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(calls)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(admitted, 90);
    }
}

// Goal R-7.
// threat 47
#[test]
fn a_hundred_a_minute_admit_at_least_99_of_what_is_offered() {
    let limiter = limiter(vec![window(100, Duration::from_mins(1))]);
    let begin = start();
    for minute in 0..10_u32 {
        let now = begin + Duration::from_millis(60_200) * minute;
        let admitted = (0..200_u32).filter(|call| {
            limiter
                .check("k", now + Duration::from_millis(1) * *call)
                .allowed
        });
        let admitted = admitted.count();
        assert!((99..=100).contains(&admitted), "{admitted}");
    }
}

#[test]
fn what_another_admitted_counts_whether_there_is_room_or_not() {
    let limiter = limiter(vec![window(250, Duration::from_mins(1))]);
    let begin = start();
    let at = |seconds| begin + Duration::from_secs(seconds);
    limiter.note("k", NonZeroU32::new(200).unwrap(), at(0));
    limiter.note("k", NonZeroU32::new(150).unwrap(), at(30));
    assert!(!limiter.check("k", at(31)).allowed, "350 in a minute");
    // Those of the beginning have left; what came at 30 s stands.
    assert!(
        limiter
            .check_n("k", NonZeroU32::new(90).unwrap(), at(61))
            .allowed
    );
    assert!(
        !limiter
            .check_n("k", NonZeroU32::new(20).unwrap(), at(61))
            .allowed
    );
}
