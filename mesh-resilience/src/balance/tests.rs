//! Shares, penalties, ejection and what is left when everything fails.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::classify::Outcome;
use crate::random::SplitMix64;

struct Weighted(Arc<EndpointState>, u32);

impl Endpoint for Weighted {
    fn state(&self) -> &EndpointState {
        &self.0
    }

    fn weight(&self) -> u32 {
        self.1
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn endpoints(weights: &[u32], now: Instant) -> Vec<Weighted> {
    weights
        .iter()
        .map(|weight| Weighted(Arc::new(EndpointState::new(now)), *weight))
        .collect()
}

fn shares(policy: Policy, endpoints: &[Weighted], picks: usize, now: Instant) -> Vec<usize> {
    let random = SplitMix64::new(7);
    let picker = Picker::new(policy, endpoints);
    let mut shares = vec![0; endpoints.len()];
    for _ in 0..picks {
        shares[picker.pick(endpoints, &[], &random, now).unwrap()] += 1;
    }
    shares
}

const POLICIES: [Policy; 3] = [Policy::LeastRequest, Policy::RoundRobin, Policy::Random];

#[test]
fn idle_endpoints_share_by_weight() {
    let now = now();
    for policy in POLICIES {
        for weights in [vec![1, 1, 1, 1], vec![1, 2, 5], vec![3, 0, 4_000_000_000]] {
            let endpoints = endpoints(&weights, now);
            let total: f64 = weights
                .iter()
                .map(|weight| f64::from((*weight).max(1)))
                .sum();
            for (share, weight) in shares(policy, &endpoints, 40_000, now).iter().zip(&weights) {
                let expected = 40_000.0 * f64::from((*weight).max(1)) / total;
                let share = f64::from(u32::try_from(*share).unwrap());
                assert!(
                    (share - expected).abs() < 600.0,
                    "{policy:?} {weights:?}: {share} for {expected}"
                );
            }
        }
    }
}

#[test]
fn a_weighted_round_is_exact_and_spread() {
    let now = now();
    let endpoints = endpoints(&[5, 1, 1], now);
    let picker = Picker::new(Policy::RoundRobin, &endpoints);
    let round: Vec<_> = (0..7)
        .map(|_| {
            picker
                .pick(&endpoints, &[], &SplitMix64::new(0), now)
                .unwrap()
        })
        .collect();
    // The example in nginx's commit message.
    assert_eq!(round, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn the_less_loaded_of_two_wins_relative_to_its_weight() {
    let now = now();
    let endpoints = endpoints(&[1, 3], now);
    let one = endpoints[0].0.begin();
    let _three: Vec<_> = (0..2).map(|_| endpoints[1].0.begin()).collect();
    assert_eq!(shares(Policy::LeastRequest, &endpoints, 100, now), [0, 100]);
    drop(one);
    assert_eq!(shares(Policy::LeastRequest, &endpoints, 100, now), [100, 0]);
}

#[test]
fn an_endpoint_that_fails_fast_draws_no_traffic() {
    let now = now();
    let endpoints = endpoints(&[1, 1, 1], now);
    let outliers = Outliers::new(OutlierConfig::default()).unwrap();
    let picker = Picker::new(Policy::LeastRequest, &endpoints);
    let random = SplitMix64::new(3);
    let mut failed = 0;
    for _ in 0..10_000 {
        let index = picker.pick(&endpoints, &[], &random, now).unwrap();
        let _call = endpoints[index].0.begin();
        failed += u32::from(index == 0);
        let outcome = if index == 0 {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        outliers.record(&endpoints, index, outcome, now);
    }
    assert_eq!(failed, 1, "with idle neighbours one failure is enough");
}

#[test]
fn failures_are_forgotten_with_time_and_by_success() {
    let now = now();
    let state = EndpointState::new(now);
    for _ in 0..100 {
        state.failed(now);
    }
    assert!(state.failure_ratio(now) > 0.99);
    let later = now + Duration::from_secs(5);
    assert!((state.failure_ratio(later) - 0.5).abs() < 0.01);
    assert!(state.failure_ratio(now + Duration::from_mins(10)) == 0.0);
    for _ in 0..400 {
        state.succeeded(later);
    }
    assert!(state.failure_ratio(later) == 0.0 && state.failures_in_row() == 0);
}

#[test]
fn five_failures_eject_for_a_time_that_grows_and_is_forgiven() {
    let mut now = now();
    let endpoints = endpoints(&[1, 1], now);
    let outliers = Outliers::new(OutlierConfig::default()).unwrap();
    let eject = |now| (0..5).find_map(|_| outliers.record(&endpoints, 0, Outcome::Failure, now));
    for times in 1..=11 {
        let ejection = eject(now).unwrap();
        assert_eq!(ejection, Duration::from_secs(30) * times.min(10));
        assert!(
            endpoints[0]
                .0
                .is_ejected(now + ejection.saturating_sub(Duration::from_millis(1)))
        );
        now += ejection;
        assert!(!endpoints[0].0.is_ejected(now));
    }
    now += Duration::from_mins(5);
    assert_eq!(eject(now).unwrap(), Duration::from_mins(1));
}

#[test]
fn caller_errors_and_a_success_between_do_not_eject() {
    let now = now();
    let endpoints = endpoints(&[1, 1], now);
    let outliers = Outliers::new(OutlierConfig::default()).unwrap();
    for round in 0..40 {
        let outcome = if round % 5 == 4 {
            Outcome::Success
        } else {
            Outcome::Failure
        };
        assert_eq!(outliers.record(&endpoints, 0, outcome, now), None);
        assert_eq!(
            outliers.record(&endpoints, 1, Outcome::CallerError, now),
            None
        );
    }
}

#[test]
fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
    let now = now();
    let random = SplitMix64::new(5);
    for policy in POLICIES {
        let endpoints = endpoints(&[1, 1, 9], now);
        let picker = Picker::new(policy, &endpoints);
        for _ in 0..200 {
            assert_eq!(
                picker.pick(&endpoints, &[2, 0], &random, now),
                Some(1),
                "{policy:?}"
            );
            assert!(picker.pick(&endpoints, &[0, 1, 2], &random, now).is_some());
        }
        assert_eq!(picker.pick::<Weighted>(&[], &[], &random, now), None);
        // A list that shrank since: wrong use, but no harm.
        assert_eq!(picker.pick(&endpoints[..1], &[], &random, now), Some(0));
    }
}

proptest! {
    #[test]
    fn at_most_half_are_ejected_and_never_the_last(
        len in 1_usize..9,
        results in prop::collection::vec((0_usize..9, 0_u64..3_000), 1..200),
    ) {
        let mut now = now();
        let endpoints = endpoints(&vec![1; len], now);
        let config = OutlierConfig::default().with_consecutive_failures(NonZeroU32::MIN);
        let outliers = Outliers::new(config).unwrap();
        let picker = Picker::new(Policy::LeastRequest, &endpoints);
        for (index, wait) in results {
            now += Duration::from_millis(wait);
            outliers.record(&endpoints, index % len, Outcome::Failure, now);
            let ejected = endpoints.iter().filter(|endpoint| endpoint.0.is_ejected(now)).count();
            prop_assert!(ejected <= len / 2 && ejected < len);
            let picked = picker.pick(&endpoints, &[], &SplitMix64::new(wait), now).unwrap();
            prop_assert!(!endpoints[picked].0.is_ejected(now));
        }
    }
}
