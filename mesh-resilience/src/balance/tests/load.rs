//! Load, latency and failures, in a simulation on virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::classify::Outcome;

/// How a simulated endpoint answers: after how long, and how.
type Answers = fn(usize) -> (Duration, Outcome);

/// What part of the calls of so many callers, each of which calls again when it was answered, goes to endpoint 0 of ten in
/// a minute. Nobody is ejected.
fn part(which: Policy, callers: usize, answers: Answers) -> f64 {
    let start = now();
    let endpoints = endpoints(&[1; 10], start);
    let never = OutlierConfig::default()
        .with_consecutive_failures(None)
        .with_consecutive_gateway_failures(None);
    let outliers = Outliers::new(never).unwrap();
    let (picker, random) = (
        Picker::new(&policy(which), &endpoints, start),
        SplitMix64::new(11),
    );
    let mut due = BinaryHeap::new();
    let mut under_way: Vec<Option<(usize, Instant, InFlight)>> =
        (0..callers).map(|_| None).collect();
    due.extend((0..callers).map(|caller| Reverse((start, caller))));
    let mut counts = [0_u32; 10];
    while let Some(Reverse((now, caller))) = due.pop() {
        if now > start + Duration::from_mins(1) {
            break;
        }
        if let Some((index, began, call)) = under_way[caller].take() {
            let outcome = answers(index).1;
            let is_failure = outcome == Outcome::Failure;
            picker.observe(&endpoints[index], now - began, is_failure, now);
            assert!(outliers.record(&endpoints, index, outcome, now).is_empty());
            drop(call);
        }
        let index = picker.pick(&endpoints, &Ask::new(now, &random)).unwrap();
        counts[index] += 1;
        under_way[caller] = Some((index, now, endpoints[index].state.begin()));
        due.push(Reverse((now + answers(index).0, caller)));
    }
    let all: u32 = counts.iter().sum();
    f64::from(counts[0]) / f64::from(all)
}

fn slow(index: usize) -> (Duration, Outcome) {
    let millis = if index == 0 { 100 } else { 10 };
    (Duration::from_millis(millis), Outcome::Success)
}

fn fails_fast(index: usize) -> (Duration, Outcome) {
    if index == 0 {
        (Duration::from_micros(100), Outcome::Failure)
    } else {
        (Duration::from_millis(10), Outcome::Success)
    }
}

#[test]
fn an_endpoint_ten_times_as_slow_gets_next_to_nothing_by_latency_and_little_by_load() {
    // An even share is 10 %.
    let by_latency = part(Policy::PeakEwma, 20, slow);
    assert!(by_latency < 0.002, "{by_latency}");
    let by_load = part(Policy::LeastRequest, 20, slow);
    assert!(by_load < 0.045, "{by_load}");
}

#[test]
fn an_endpoint_that_fails_fast_draws_no_traffic() {
    for which in [Policy::LeastRequest, Policy::PeakEwma] {
        // Never ejected, a hundred times as fast, and always failing: what is left are tries whether it is well again.
        let part = part(which, 20, fails_fast);
        assert!(part < 0.01, "{which:?} {part}");
    }
}

#[test]
fn the_less_loaded_of_two_wins_relative_to_its_weight() {
    let now = now();
    let endpoints = endpoints(&[1, 3], now);
    let one = endpoints[0].state.begin();
    let _three: Vec<_> = (0..2).map(|_| endpoints[1].state.begin()).collect();
    let shares = || shares(&policy(Policy::LeastRequest), &endpoints, (100, 1), now);
    assert_eq!(shares(), [0, 100]);
    drop(one);
    assert_eq!(shares(), [100, 0]);
}

#[test]
fn a_peak_counts_at_once_and_is_forgotten_little_by_little() {
    let (start, decay) = (now(), Duration::from_secs(10));
    let state = EndpointState::new(start);
    let latency = |seconds| {
        let known = state.latency(decay, start + Duration::from_secs(seconds));
        known.unwrap().as_secs_f64()
    };
    assert_eq!(state.latency(decay, start), None);
    state.observe(Duration::from_millis(10), false, decay, start);
    state.observe(Duration::from_secs(1), false, decay, start);
    assert!((latency(0) - 1.0).abs() < 1e-6);
    let then = start + decay;
    state.observe(Duration::from_millis(10), false, decay, then);
    // 1 s decayed to 37 %, and the sample for the rest.
    let expected = (-1.0_f64).exp() + 0.01 * (1.0 - (-1.0_f64).exp());
    assert!((latency(10) - expected).abs() < 1e-4, "{}", latency(10));
    assert!((latency(20) - expected * (-1.0_f64).exp()).abs() < 1e-4);
    // A failure makes it no faster, and slower where it took long.
    let before = latency(10);
    state.observe(Duration::from_micros(1), true, decay, then);
    assert!((latency(10) - before).abs() < 1e-9);
    state.observe(Duration::from_secs(2), true, decay, then);
    assert!((latency(10) - 2.0).abs() < 1e-6);
}

#[test]
fn a_new_endpoint_is_asked_once_and_then_waited_for() {
    let now = now();
    let endpoints = endpoints(&[1; 2], now);
    let decay = BalanceConfig::default().latency_decay;
    endpoints[1]
        .state
        .observe(Duration::from_millis(50), false, decay, now);
    let shares = || shares(&policy(Policy::PeakEwma), &endpoints, (100, 1), now);
    assert_eq!(shares(), [100, 0]);
    let _asked = endpoints[0].state.begin();
    assert_eq!(shares(), [0, 100]);
}

#[test]
fn failures_are_forgotten_with_time_and_by_success() {
    let now = now();
    let endpoints = endpoints(&[1, 1], now);
    let state = &endpoints[0].state;
    let outliers = Outliers::new(OutlierConfig::default().with_max_ejected_ratio(0.0)).unwrap();
    let record = |outcome, now| outliers.record(&endpoints, 0, outcome, now);
    for _ in 0..100 {
        record(Outcome::Failure, now);
    }
    assert!(state.failure_ratio(now) > 0.99);
    let later = now + Duration::from_secs(5);
    assert!((state.failure_ratio(later) - 0.5).abs() < 0.01);
    assert!(state.failure_ratio(now + Duration::from_mins(10)) == 0.0);
    for _ in 0..400 {
        record(Outcome::Success, later);
    }
    assert!(state.failure_ratio(later) == 0.0 && state.failures_in_row() == 0);
}
