//! Shares, penalties, zones, ejection and what is left when everything fails.

mod by_hash;
mod ejected;
mod load;
mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::random::SplitMix64;

/// An endpoint of which everything can be said.
struct Fake {
    state: Arc<EndpointState>,
    key: String,
    weight: u32,
    priority: u16,
    is_usable: bool,
    zone: Option<&'static str>,
}

impl Fake {
    fn new(key: usize, now: Instant) -> Self {
        Self {
            state: Arc::new(EndpointState::new(now)),
            key: format!("10.0.0.{key}:8080"),
            weight: 1,
            priority: 0,
            is_usable: true,
            zone: None,
        }
    }
}

impl Endpoint for Fake {
    fn state(&self) -> &EndpointState {
        &self.state
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    fn priority(&self) -> u16 {
        self.priority
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }

    fn zone(&self) -> Option<&str> {
        self.zone
    }
}

impl Labels for Fake {
    fn has(&self, label: &Label, value: &str) -> bool {
        *label == Label::Zone && self.zone == Some(value)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn endpoints(weights: &[u32], now: Instant) -> Vec<Fake> {
    let fake = |(key, weight): (usize, &u32)| Fake {
        weight: *weight,
        ..Fake::new(key, now)
    };
    weights.iter().enumerate().map(fake).collect()
}

fn eject(endpoint: &Fake, now: Instant) {
    let outliers = Outliers::new(OutlierConfig::default()).unwrap();
    outliers.eject_at_once(&endpoint.state, now).unwrap();
}

/// How often each endpoint is picked, without any load.
fn shares(
    config: &BalanceConfig,
    endpoints: &[Fake],
    (picks, seed): (u32, u64),
    now: Instant,
) -> Vec<u32> {
    let picker = Picker::new(config, endpoints, now);
    count(&picker, endpoints, (picks, seed), now)
}

fn count(picker: &Picker, endpoints: &[Fake], (picks, seed): (u32, u64), now: Instant) -> Vec<u32> {
    let random = SplitMix64::new(seed);
    let mut shares = vec![0; endpoints.len()];
    for _ in 0..picks {
        let ask = Ask::new(now, &random);
        shares[picker.pick(endpoints, &ask).unwrap()] += 1;
    }
    shares
}

fn policy(policy: Policy) -> BalanceConfig {
    BalanceConfig::default().with_policy(policy)
}

const ALL: [Policy; 6] = [
    Policy::LeastRequest,
    Policy::PeakEwma,
    Policy::RoundRobin,
    Policy::Random,
    Policy::RingHash,
    Policy::Maglev,
];

#[test]
fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
    let (now, random) = (now(), SplitMix64::new(5));
    for which in ALL {
        let endpoints = endpoints(&[1, 1, 9], now);
        let picker = Picker::new(&policy(which), &endpoints, now);
        let ask = Ask::new(now, &random);
        for _ in 0..200 {
            let other = picker.pick(&endpoints, &ask.with_tried(&[2, 0]));
            assert_eq!(other, Some(1), "{which:?}");
            assert!(
                picker
                    .pick(&endpoints, &ask.with_tried(&[0, 1, 2]))
                    .is_some()
            );
        }
        // A list that shrank since: wrong use, but no harm.
        assert_eq!(picker.pick(&endpoints[..1], &ask), Some(0));
        let nobody = Picker::new::<Fake>(&policy(which), &[], now);
        assert_eq!(nobody.pick::<Fake>(&[], &ask), None);
    }
}

#[test]
fn whoever_is_ejected_gets_nothing_until_everybody_is() {
    let (start, random) = (now(), SplitMix64::new(5));
    for which in ALL {
        let endpoints = endpoints(&[1; 4], start);
        let picker = Picker::new(&policy(which), &endpoints, start);
        let ask = Ask::new(start, &random);
        for ejected in 0..3 {
            eject(&endpoints[ejected], start);
            for _ in 0..100 {
                assert!(
                    picker.pick(&endpoints, &ask).unwrap() > ejected,
                    "{which:?}"
                );
            }
        }
        // One that was tried is better than one that is ejected.
        assert_eq!(picker.pick(&endpoints, &ask.with_tried(&[3])), Some(3));
        eject(&endpoints[3], start);
        let counts = count(&picker, &endpoints, (400, 1), start);
        let callable = counts.iter().filter(|count| **count > 0).count();
        assert!(callable > 1, "{which:?} {counts:?}");
        let back = start + Duration::from_secs(30);
        assert!(picker.pick(&endpoints, &Ask::new(back, &random)).is_some());
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let fine = BalanceConfig::default;
    fine().check().unwrap();
    let slow = SlowStart::default();
    for (wrong, said) in [
        (
            fine().with_panic_threshold(1.1),
            "panic_threshold is 1.1, set it between 0 and 1",
        ),
        (
            fine().with_latency_decay(Duration::ZERO),
            "latency_decay is zero, set it to a positive duration",
        ),
        (
            fine().with_ring_size(0, 1),
            "ring_points is 0, set it between 1 and 65536",
        ),
        (
            fine().with_maglev_table_size(65_536),
            "maglev_table_size is 65536, set it to a prime number such as 65537",
        ),
        (
            fine().with_zone_aware(ZoneAware::new("a").with_factor(f64::NAN)),
            "zone_aware.factor is NaN, set it between 0 and 1000",
        ),
        (
            fine().with_slow_start(slow.clone().with_window(Duration::ZERO)),
            "slow_start.window is zero, set it to a positive duration",
        ),
        (
            fine().with_slow_start(slow.with_aggression(0.0)),
            "slow_start.aggression is 0, set it between 0.01 and 100",
        ),
    ] {
        assert_eq!(wrong.check().unwrap_err().to_string(), said);
    }
}
