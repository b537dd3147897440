//! The memory against a list, the last used at its end, over random traces.

use std::num::NonZeroUsize;

use super::*;
use crate::random::{Random as _, SplitMix64};

/// Key, answer, bytes, when it was kept, and when it is over.
type Known = (u8, u64, usize, u64, u64);

const MAX_AGE: u64 = 50;
const MAX_ENTRIES: usize = 4;
const MAX_BYTES: usize = 30;
const MAX_ANSWER: usize = 12;

fn follow(seed: u64, start: Instant) {
    let random = SplitMix64::new(seed);
    let config = StaleConfig::default()
        .with_max_age(Duration::from_millis(MAX_AGE))
        .with_max_entries(NonZeroUsize::new(MAX_ENTRIES).unwrap())
        .with_max_bytes(MAX_BYTES)
        .with_max_answer_bytes(MAX_ANSWER);
    let mut table = Table::new(config);
    let mut model: Vec<Known> = Vec::new();
    let mut now = 0;
    for step in 0..60 {
        now += random.below(12) as u64;
        let at = start + Duration::from_millis(now);
        let key = u8::try_from(random.below(7)).unwrap();
        match random.below(8) {
            0..4 => {
                let bytes = random.below(MAX_ANSWER + 3);
                let life = random.below(80) as u64;
                let age = random.below(20) as u64;
                let weight = Weight::new(bytes)
                    .with_life(Duration::from_millis(life))
                    .with_age(Duration::from_millis(age));
                table.put(key, step, &weight, at);
                let left = life.min(MAX_AGE).saturating_sub(age);
                model.retain(|known| known.0 != key);
                if bytes <= MAX_ANSWER && left > 0 {
                    model.push((key, step, bytes, now, now + left));
                }
                while model.len() > MAX_ENTRIES
                    || model.iter().map(|known| known.2).sum::<usize>() > MAX_BYTES
                {
                    model.remove(0);
                }
            }
            4..7 => {
                let found = table.get(&key, at);
                let place = model.iter().position(|known| known.0 == key);
                let known = place.map(|place| model.remove(place));
                let known = known.filter(|known| now < known.4);
                let expected = known.map(|known| (known.1, Duration::from_millis(now - known.3)));
                model.extend(known);
                assert_eq!(found, expected, "trace {seed} step {step}");
            }
            _ => {
                table.forget(&key);
                model.retain(|known| known.0 != key);
            }
        }
        let bytes: usize = model.iter().map(|known| known.2).sum();
        assert_eq!(
            (table.len(), table.bytes(), table.order.len()),
            (model.len(), bytes, model.len()),
            "trace {seed} step {step}"
        );
    }
}

// `MESH_TRACES=1000000` follows all of a million.
#[test]
fn the_last_good_answer_is_given_and_what_was_used_longest_ago_goes_first() {
    let asked = std::env::var("MESH_TRACES").ok();
    let traces = asked.map_or(5000, |count| count.parse().unwrap());
    let start = tokio::time::Instant::now().into_std();
    for seed in 0..traces {
        follow(seed, start);
    }
}
