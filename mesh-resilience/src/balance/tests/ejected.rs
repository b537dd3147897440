//! When endpoints are ejected, and when not.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::classify::Outcome;
use crate::random::Random;

const SECOND: Duration = Duration::from_secs(1);

fn five(outliers: &Outliers, endpoints: &[Fake], now: Instant) -> Option<Ejection> {
    let once = |_| {
        outliers
            .record(endpoints, 0, Outcome::Failure, now)
            .pop()
            .map(|(index, ejection)| {
                assert_eq!(index, 0);
                ejection
            })
    };
    (0..5).find_map(once)
}

#[test]
fn five_failures_eject_for_a_time_that_grows_and_is_forgiven() {
    let mut now = now();
    let endpoints = endpoints(&[1, 1], now);
    let outliers = Outliers::new(OutlierConfig::default()).unwrap();
    for times in 1..=11 {
        let ejection = five(&outliers, &endpoints, now).unwrap();
        assert_eq!(ejection.length, SECOND * 30 * times.min(10));
        assert_eq!(
            (ejection.recent, ejection.reason),
            (times, Reason::ConsecutiveFailures)
        );
        let state = &endpoints[0].state;
        let before_end = now + ejection.length.saturating_sub(Duration::from_millis(1));
        assert!(state.is_ejected(before_end));
        let shown = outliers.snapshot(&endpoints, now + SECOND);
        assert_eq!((shown.usable, shown.ejected.len()), (2, 1));
        assert_eq!(
            shown.ejected[0].1.length,
            ejection.length.saturating_sub(SECOND)
        );
        now += ejection.length;
        assert!(!state.is_ejected(now) && state.ejection(now).is_none());
    }
    now += Duration::from_mins(5);
    assert_eq!(
        five(&outliers, &endpoints, now).unwrap().length,
        SECOND * 60
    );
}

#[test]
fn caller_errors_and_a_success_between_do_not_eject() {
    let now = now();
    let endpoints = endpoints(&[1, 1], now);
    let outliers = Outliers::new(OutlierConfig::default()).unwrap();
    for round in 0..40 {
        let seen = if round % 5 == 4 {
            Outcome::Success
        } else {
            Outcome::Failure
        };
        assert!(outliers.record(&endpoints, 0, seen, now).is_empty());
        assert!(
            outliers
                .record(&endpoints, 1, Outcome::CallerError, now)
                .is_empty()
        );
    }
}

#[test]
fn gateway_failures_have_a_count_of_their_own() {
    let now = now();
    let endpoints = endpoints(&[1, 1], now);
    let config = OutlierConfig::default()
        .with_consecutive_failures(None)
        .with_consecutive_gateway_failures(NonZeroU32::new(3));
    let outliers = Outliers::new(config).unwrap();
    let record = |seen| outliers.record(&endpoints, 0, seen, now);
    for _ in 0..10 {
        assert!(record(Seen::GatewayFailure).is_empty());
        assert!(record(Seen::GatewayFailure).is_empty());
        assert!(record(Seen::Failure).is_empty());
    }
    record(Seen::GatewayFailure);
    record(Seen::GatewayFailure);
    let (_, ejection) = record(Seen::GatewayFailure).pop().unwrap();
    assert_eq!(ejection.reason, Reason::ConsecutiveGatewayFailures);
}

#[test]
fn who_does_much_worse_than_the_others_is_ejected_once_an_interval() {
    let start = now();
    let endpoints = endpoints(&[1; 6], start);
    let config = OutlierConfig::default()
        .with_success_rate(SuccessRate::default())
        .with_failure_rate(FailureRate::default().with_ratio(0.9));
    let outliers = Outliers::new(config).unwrap();
    // Every other call to the first fails: never five in a row.
    let interval = |from: Instant| {
        let mut ejected = Vec::new();
        for call in 0..601_u32 {
            let now = from + Duration::from_millis(u64::from(call) * 50);
            let index = (call % 6) as usize;
            let outcome = if index == 0 && call % 12 == 0 {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            ejected.extend(outliers.record(&endpoints, index, outcome, now));
        }
        ejected
    };
    let ejected = interval(start);
    assert_eq!(ejected.len(), 1, "{ejected:?}");
    assert_eq!(
        (ejected[0].0, ejected[0].1.reason),
        (0, Reason::SuccessRate)
    );
}

#[derive(Default)]
struct Heard {
    ejected: AtomicU32,
    spared: AtomicU32,
    returned: AtomicU32,
}

impl Observe for Heard {
    fn ejected(&self, _: &Ejection) {
        self.ejected.fetch_add(1, Ordering::Relaxed);
    }

    fn spared(&self, _: Reason) {
        self.spared.fetch_add(1, Ordering::Relaxed);
    }

    fn returned(&self) {
        self.returned.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_observer_hears_of_ejections_of_those_that_could_not_be_and_of_returns() {
    let start = now();
    let endpoints = endpoints(&[1; 2], start);
    let heard = Arc::new(Heard::default());
    let config = OutlierConfig::default().with_consecutive_failures(NonZeroU32::MIN);
    let outliers = Outliers::new(config)
        .unwrap()
        .with_observer(Arc::clone(&heard) as Arc<_>);
    outliers.record(&endpoints, 0, Outcome::Failure, start);
    outliers.record(&endpoints, 1, Outcome::Failure, start);
    let so_far = || {
        [&heard.ejected, &heard.spared, &heard.returned].map(|count| count.load(Ordering::Relaxed))
    };
    assert_eq!(so_far(), [1, 1, 0]);
    outliers.record(&endpoints, 0, Outcome::Success, start + SECOND * 29);
    assert_eq!(so_far(), [1, 1, 0]);
    for _ in 0..3 {
        outliers.record(&endpoints, 0, Outcome::Success, start + SECOND * 30);
    }
    assert_eq!(so_far(), [1, 1, 1]);
}

/// What the documentation says, in other words: times in milliseconds, and everything kept.
#[derive(Clone, Default)]
struct Model {
    row: u32,
    gateway_row: u32,
    ejections: u64,
    until: u64,
}

impl Model {
    fn record(
        models: &mut [Self],
        index: usize,
        seen: Seen,
        limits: (u32, u32, usize),
        now: u64,
    ) -> Option<u64> {
        let (any, gateway, at_most) = limits;
        let out = models.iter().filter(|one| one.until > now).count();
        let len = models.len();
        let one = &mut models[index];
        match seen {
            Seen::Nothing => return None,
            Seen::Success => (one.row, one.gateway_row) = (0, 0),
            Seen::Failure => (one.row, one.gateway_row) = (one.row + 1, 0),
            Seen::GatewayFailure => (one.row, one.gateway_row) = (one.row + 1, one.gateway_row + 1),
        }
        let is_due = one.row >= any || one.gateway_row >= gateway;
        if seen == Seen::Success
            || !is_due
            || one.until > now
            || out + 1 > at_most
            || out + 1 >= len
        {
            return None;
        }
        one.ejections = one.ejections.saturating_sub((now - one.until) / 20_000) + 1;
        let length = (10_000 * one.ejections).min(60_000);
        *one = Self {
            until: now + length,
            ejections: one.ejections,
            ..Self::default()
        };
        Some(length)
    }
}

fn trace(seed: u64) {
    let random = SplitMix64::new(seed);
    let start = now();
    let len = 1 + random.below(6);
    let endpoints = endpoints(&vec![1; len], start);
    let (any, gateway) = (1 + random.below(4), 1 + random.below(4));
    let limit = |count: usize| NonZeroU32::new(u32::try_from(count).unwrap());
    let config = OutlierConfig::default()
        .with_consecutive_failures(limit(any))
        .with_consecutive_gateway_failures(limit(gateway))
        .with_ejection(SECOND * 10)
        .with_max_ejection(SECOND * 60)
        .with_interval(SECOND * 20);
    let outliers = Outliers::new(config).unwrap();
    let limits = (
        limit(any).unwrap().get(),
        limit(gateway).unwrap().get(),
        len / 2,
    );
    let mut models = vec![Model::default(); len];
    let mut millis = 0;
    for _ in 0..24 {
        millis += random.next_u64() % [1, 3_000, 40_000][random.below(3)];
        let index = random.below(len);
        let all = [
            Seen::Success,
            Seen::Failure,
            Seen::GatewayFailure,
            Seen::GatewayFailure,
            Seen::Nothing,
        ];
        let said = all[random.below(all.len())];
        let now = start + Duration::from_millis(millis);
        let found = outliers.record(&endpoints, index, said, now);
        let expected = Model::record(&mut models, index, said, limits, millis);
        let found = found
            .first()
            .map(|(index, ejection)| (*index, ejection.length.as_millis()));
        assert_eq!(
            found,
            expected.map(|length| (index, u128::from(length))),
            "seed {seed} at {millis}"
        );
        for (fake, model) in endpoints.iter().zip(&models) {
            assert_eq!(
                fake.state.is_ejected(now),
                model.until > millis,
                "seed {seed} at {millis}"
            );
        }
        let ejected = models.iter().filter(|one| one.until > millis).count();
        assert!(ejected <= len / 2 && ejected < len, "seed {seed}");
    }
}

#[test]
fn ejections_are_those_of_the_model() {
    let traces = std::env::var("MESH_TRACES").map_or(3_000, |traces| traces.parse().unwrap());
    (0..traces).for_each(trace);
}
