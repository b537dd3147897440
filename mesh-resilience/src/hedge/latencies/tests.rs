//! The delay against a list of all that was recorded.

use super::*;
use crate::random::{Random, SplitMix64};

fn origin() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// All latencies with their times; forgets in the same two steps.
#[derive(Default)]
struct Model {
    current: Vec<Duration>,
    previous: Vec<Duration>,
    since: Option<Instant>,
}

impl Model {
    fn age(&mut self, half: Duration, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now - since >= half {
            let current = std::mem::take(&mut self.current);
            self.previous = if now - since < 2 * half {
                current
            } else {
                Vec::new()
            };
            self.since = Some(now);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a few hundred"
    )]
    fn exact(&self, config: &HedgeConfig) -> Duration {
        let mut all = [&self.current[..], &self.previous[..]].concat();
        all.sort_unstable();
        if (all.len() as f64) * (1.0 - config.quantile) < 1.0 {
            return config.max_delay;
        }
        let rank = (all.len() as f64 * config.quantile).ceil() as usize;
        all[rank - 1].clamp(config.min_delay, config.max_delay)
    }
}

#[test]
fn the_delay_is_the_quantile_of_what_was_recorded_lately() {
    let traces = std::env::var("MESH_TRACES").map_or(300, |n| n.parse().unwrap());
    for trace in 0..traces {
        let random = SplitMix64::new(trace);
        let config = HedgeConfig::default()
            .with_quantile(0.5 + random.unit() * 0.49)
            .with_window(Duration::from_millis(200 + random.below(800) as u64))
            .with_min_delay(Duration::from_micros(random.below(3000) as u64))
            .with_max_delay(Duration::from_millis(4 + random.below(100) as u64));
        let (mut latencies, mut model) = (Latencies::new(&config), Model::default());
        let mut now = origin();
        for _ in 0..40 {
            now += Duration::from_millis([0, 3, 20, 150, 900][random.below(5)]);
            model.age(config.window / 2, now);
            for _ in 0..random.below(8) {
                let latency = Duration::from_micros(1 << random.below(18));
                latencies.record(latency, now);
                model.current.push(latency);
            }
            let (found, exact) = (latencies.delay(&config, now), model.exact(&config));
            assert!(
                found >= exact && found <= exact.mul_f64(1.04) + Duration::from_nanos(1100),
                "trace {trace}: {found:?} instead of {exact:?}"
            );
        }
    }
}

#[test]
fn a_fixed_delay_stays_and_an_unknown_one_is_the_longest() {
    let now = origin();
    let delay = Duration::from_millis(20);
    let fixed = HedgeConfig::fixed(delay);
    let mut latencies = Latencies::new(&fixed);
    for _ in 0..100 {
        latencies.record(Duration::from_secs(1), now);
    }
    assert_eq!(latencies.delay(&fixed, now), delay);
    let config = HedgeConfig::default();
    let mut latencies = Latencies::new(&config);
    for known in 0..20 {
        assert_eq!(latencies.delay(&config, now), config.max_delay, "{known}");
        latencies.record(delay, now);
    }
    assert!(latencies.delay(&config, now) < delay.mul_f64(1.04));
    let later = now + config.window;
    assert_eq!(latencies.delay(&config, later), config.max_delay);
}
