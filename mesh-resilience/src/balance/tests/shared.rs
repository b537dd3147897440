//! Who gets what part of the calls: by weight, priority, zone and age.

use proptest::prelude::*;

use super::*;

/// Pearson's statistic for what was counted against parts as large as the weights.
fn chi_square(counts: &[u32], weights: &[u32]) -> f64 {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let picks: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let term = |(count, weight): (&u32, &u32)| {
        let expected = picks * f64::from(*weight) / total;
        (f64::from(*count) - expected).powi(2) / expected
    };
    counts.iter().zip(weights).map(term).sum()
}

/// Ten endpoints, so nine degrees of freedom: chance alone goes past 33.7 once in 10,000 runs, and its mean is 9. Twenty
/// fixed seeds.
#[test]
fn idle_endpoints_share_by_weight_as_chance_would() {
    let now = now();
    for which in [Policy::LeastRequest, Policy::PeakEwma, Policy::Random] {
        for weights in [[1; 10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
            let endpoints = endpoints(&weights, now);
            let statistic = |seed| {
                let counts = shares(&policy(which), &endpoints, (5_000, seed), now);
                chi_square(&counts, &weights)
            };
            let all: Vec<f64> = (0..20).map(statistic).collect();
            let mean = all.iter().sum::<f64>() / 20.0;
            assert!(all.iter().all(|one| *one < 33.7), "{which:?} {all:?}");
            assert!((6.0..12.0).contains(&mean), "{which:?} {mean}");
        }
    }
}

#[test]
fn extreme_weights_are_honoured() {
    let now = now();
    for which in [Policy::LeastRequest, Policy::RoundRobin, Policy::Random] {
        let endpoints = endpoints(&[3, 0, 4_000_000_000], now);
        let counts = shares(&policy(which), &endpoints, (40_000, 7), now);
        assert!(counts[0] + counts[1] < 30, "{which:?} {counts:?}");
    }
}

#[test]
fn a_round_is_exact_whoever_asks() {
    let now = now();
    let equal = endpoints(&[7; 3], now);
    assert_eq!(
        shares(&policy(Policy::RoundRobin), &equal, (3_000, 0), now),
        [1_000; 3]
    );
    let weighted = endpoints(&[5, 1, 2], now);
    let counts = shares(&policy(Policy::RoundRobin), &weighted, (8_000, 0), now);
    assert_eq!(counts, [5_000, 1_000, 2_000]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// At every moment of a round, nobody has had a whole turn more or less than its due.
    #[test]
    fn a_weighted_round_is_smooth(weights in prop::collection::vec(1_u32..40, 2..12)) {
        let now = now();
        let endpoints = endpoints(&weights, now);
        let picker = Picker::new(&policy(Policy::RoundRobin), &endpoints, now);
        let total: u32 = weights.iter().sum();
        let random = SplitMix64::new(0);
        let mut had = vec![0_u32; weights.len()];
        for step in 1..=total * 2 {
            had[picker.pick(&endpoints, &Ask::new(now, &random)).unwrap()] += 1;
            for (had, weight) in had.iter().zip(&weights) {
                let due = f64::from(step) * f64::from(*weight) / f64::from(total);
                prop_assert!((f64::from(*had) - due).abs() < 2.0, "{weights:?}: {had} of {due}");
            }
        }
        prop_assert_eq!(had, weights.iter().map(|weight| weight * 2).collect::<Vec<_>>());
    }
}

/// Three zones with as many endpoints each, a then b then c.
fn zones(each: usize, now: Instant) -> Vec<Fake> {
    let zone = |index: usize| ["a", "b", "c"].get(index / each).copied();
    let fake = |index| Fake {
        zone: zone(index),
        ..Fake::new(index, now)
    };
    (0..each * 3).map(fake).collect()
}

#[test]
fn a_zone_keeps_its_calls_until_too_few_of_it_work() {
    let start = now();
    for which in ALL {
        let endpoints = zones(4, start);
        let config = policy(which).with_zone_aware(ZoneAware::new("a"));
        let picker = Picker::new(&config, &endpoints, start);
        let stays = |now| {
            let counts = count(&picker, &endpoints, (20_000, 3), now);
            counts[..4].iter().sum::<u32>()
        };
        assert_eq!(stays(start), 20_000, "{which:?}");
        // 3 of 11, and 1.4 times three zones: still more than the whole.
        eject(&endpoints[0], start);
        let later = start + Duration::from_millis(200);
        assert_eq!(stays(later), 20_000, "{which:?}");
        // 2 of 10: 84 %.
        eject(&endpoints[1], start);
        let later = start + Duration::from_millis(400);
        let stayed = stays(later);
        assert!((16_500..17_100).contains(&stayed), "{which:?} {stayed}");
        assert_eq!(picker.snapshot()[0].in_zone, Some(0.84));
        // None of it: the others take all.
        eject(&endpoints[2], start);
        eject(&endpoints[3], start);
        assert_eq!(stays(start + Duration::from_millis(600)), 0, "{which:?}");
        // Ejections are over.
        assert_eq!(stays(start + Duration::from_secs(31)), 20_000, "{which:?}");
    }
}

#[test]
fn a_small_zone_gives_away_what_it_can_not_take() {
    let now = now();
    let mut endpoints = zones(4, now);
    for fake in &mut endpoints[1..] {
        fake.zone = Some("b");
    }
    let stays = |factor| {
        let zone = ZoneAware::new("a").with_factor(factor);
        let config = BalanceConfig::default().with_zone_aware(zone);
        shares(&config, &endpoints, (12_000, 3), now)[0]
    };
    // 1 of 12, two zones: a sixth, times the factor.
    assert!((1_850..2_150).contains(&stays(1.0)), "{}", stays(1.0));
    assert!((2_620..2_980).contains(&stays(1.4)), "{}", stays(1.4));
    assert_eq!(stays(1_000.0), 12_000);
    let nobody_here = BalanceConfig::default().with_zone_aware(ZoneAware::new("z"));
    let counts = shares(&nobody_here, &endpoints, (12_000, 3), now);
    assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
}

#[test]
fn a_subset_is_picked_from_alone_and_keeps_its_places() {
    let now = now();
    let endpoints = zones(2, now);
    let random = SplitMix64::new(3);
    for which in ALL {
        let subset = Subset::new().with(Label::Zone, "b");
        let picker = Picker::among(&policy(which), &endpoints, &subset, now);
        for _ in 0..100 {
            let first = picker.pick(&endpoints, &Ask::new(now, &random)).unwrap();
            assert!((2..4).contains(&first), "{which:?} {first}");
            let other = Ask::new(now, &random);
            let other = picker
                .pick(&endpoints, &other.with_tried(&[first]))
                .unwrap();
            assert_eq!(other, 5 - first, "{which:?}");
        }
        let nobody = Subset::new().with(Label::Zone, "z");
        let picker = Picker::among(&policy(which), &endpoints, &nobody, now);
        assert_eq!(picker.pick(&endpoints, &Ask::new(now, &random)), None);
    }
}

#[test]
fn the_next_priority_takes_what_ejections_left_the_first_without() {
    let start = now();
    for which in ALL {
        let mut endpoints = endpoints(&[1; 6], start);
        for fake in &mut endpoints[4..] {
            fake.priority = 1;
        }
        let picker = Picker::new(&policy(which), &endpoints, start);
        let first = |now| {
            count(&picker, &endpoints, (10_000, 3), now)[..4]
                .iter()
                .sum::<u32>()
        };
        assert_eq!(first(start), 10_000);
        eject(&endpoints[0], start);
        eject(&endpoints[1], start);
        // 2 of 4, times 1.4.
        let kept = first(start + Duration::from_millis(200));
        assert!((6_750..7_250).contains(&kept), "{which:?} {kept}");
    }
}

#[test]
fn below_the_panic_threshold_health_is_ignored_and_only_then() {
    let now = now();
    for which in ALL {
        let called = |threshold, usable: usize| {
            let mut endpoints = endpoints(&[1; 10], now);
            for fake in &mut endpoints[usable..] {
                fake.is_usable = false;
            }
            let config = policy(which).with_panic_threshold(threshold);
            let counts = shares(&config, &endpoints, (2_000, 3), now);
            counts.iter().filter(|count| **count > 0).count()
        };
        assert_eq!(called(0.0, 1), 1, "{which:?}");
        assert_eq!(called(0.0, 0), 10, "{which:?}");
        assert_eq!(called(0.5, 4), 10, "{which:?}");
        assert_eq!(called(0.5, 5), 5, "{which:?}");
    }
}

#[test]
fn a_panic_at_the_beginning_ends_when_somebody_is_back() {
    let start = now();
    for which in ALL {
        let endpoints = endpoints(&[1; 2], start);
        for endpoint in &endpoints {
            eject(endpoint, start);
        }
        let picker = Picker::new(&policy(which), &endpoints, start);
        // Both are back, and one of them goes again.
        let later = start + Duration::from_hours(1);
        count(&picker, &endpoints, (10, 3), later);
        eject(&endpoints[0], later);
        let later = later + Duration::from_secs(1);
        assert_eq!(
            count(&picker, &endpoints, (100, 3), later)[0],
            0,
            "{which:?}"
        );
    }
}

#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    let start = now();
    let minute = Duration::from_mins(1);
    let slow = SlowStart::default().with_window(minute);
    assert!((slow.factor(Duration::from_secs(30)) - 0.5).abs() < 1e-9);
    assert!((slow.factor(Duration::ZERO) - 0.1).abs() < 1e-9);
    assert!((slow.clone().with_aggression(2.0).factor(minute / 4) - 0.5).abs() < 1e-9);
    for which in [Policy::LeastRequest, Policy::Random, Policy::RoundRobin] {
        let mut endpoints = endpoints(&[1; 4], start);
        let born = start + minute * 5;
        endpoints[3] = Fake::new(3, born);
        let config = policy(which).with_slow_start(slow.clone());
        for (age, factor) in [(0, 0.1), (15, 0.25), (30, 0.5), (60, 1.0)] {
            let now = born + Duration::from_secs(age);
            let share = shares(&config, &endpoints, (30_000, 3), now)[3];
            let expected = 30_000.0 * factor / (3.0 + factor);
            let off = (f64::from(share) - expected).abs() / expected;
            assert!(off < 0.07, "{which:?} at {age} s: {share} for {expected}");
        }
    }
}

#[test]
fn slow_start_begins_anew_when_an_ejection_is_over() {
    let start = now();
    let endpoints = endpoints(&[1; 4], start);
    let config = policy(Policy::Random).with_slow_start(SlowStart::default());
    let picker = Picker::new(&config, &endpoints, start);
    let later = start + Duration::from_mins(1);
    eject(&endpoints[0], later);
    let share = |seconds: u64| {
        let now = later + Duration::from_secs(30 + seconds);
        count(&picker, &endpoints, (10_000, 3), now)[0]
    };
    assert!((270..380).contains(&share(0)), "{}", share(0));
    assert!((1_330..1_530).contains(&share(15)), "{}", share(15));
    assert!((2_380..2_620).contains(&share(30)), "{}", share(30));
}
