//! The memory against a list, the last used at its end, over random traces.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use super::*;
use crate::random::{Random as _, SplitMix64};

/// An answer that is kept, and what it was when it arrived.
#[derive(Clone, Copy)]
struct Known {
    key: u8,
    number: u64,
    bytes: usize,
    at: u64,
    over: u64,
}

const MAX_AGE: u64 = 50;
const MAX_ENTRIES: usize = 4;
const MAX_BYTES: usize = 30;
const MAX_ANSWER: usize = 12;
const KEYS: u8 = 7;

/// A memory in which the keys don't share slots, as the list knows nothing of them.
fn apart() -> Table<u8, u64> {
    let config = StaleConfig::default()
        .with_max_age(Duration::from_millis(MAX_AGE))
        .with_max_entries(NonZeroUsize::new(MAX_ENTRIES).unwrap())
        .with_max_bytes(MAX_BYTES)
        .with_max_answer_bytes(MAX_ANSWER);
    let mut tables = std::iter::repeat_with(|| Table::new(config.clone()));
    let is_apart = |table: &Table<u8, u64>| {
        let slots: BTreeSet<_> = (0..KEYS).map(|key| table.slot(&key)).collect();
        slots.len() == usize::from(KEYS)
    };
    tables.find(is_apart).unwrap()
}

fn follow(seed: u64, start: Instant) {
    let random = SplitMix64::new(seed);
    let mut table = apart();
    let mut model: Vec<Known> = Vec::new();
    // The newest answer of each key of which something became, and those of which nothing did yet.
    let mut newest: BTreeMap<u8, u64> = BTreeMap::new();
    let mut pending: Vec<(u8, Arrival, u64)> = Vec::new();
    let mut now = 0;
    for number in 1..=80 {
        now += random.below(12) as u64;
        let at = start + Duration::from_millis(now);
        let key = u8::try_from(random.below(usize::from(KEYS))).unwrap();
        pending.push((key, Arrival { number, at }, now));
        match random.below(9) {
            // One of those that arrived, not always the first, ends, and may be kept or not.
            kind @ 0..6 => {
                let (key, arrival, arrived) = pending.remove(random.below(pending.len()));
                let bytes = random.below(MAX_ANSWER + 3);
                let life = random.below(80) as u64;
                let age = random.below(20) as u64;
                let left = life.min(MAX_AGE).saturating_sub(age);
                let is_kept = kind < 5;
                if is_kept {
                    let weight = Weight::new(bytes)
                        .with_life(Duration::from_millis(life))
                        .with_age(Duration::from_millis(age));
                    table.put(key, arrival.number, &weight, arrival);
                } else {
                    table.forget(&key, arrival);
                }
                let last = newest.entry(key).or_default();
                if *last < arrival.number {
                    *last = arrival.number;
                    model.retain(|known| known.key != key);
                    if is_kept && bytes <= MAX_ANSWER && left > 0 {
                        model.push(Known {
                            key,
                            number: arrival.number,
                            bytes,
                            at: arrived,
                            over: arrived + left,
                        });
                    }
                }
                while model.len() > MAX_ENTRIES
                    || model.iter().map(|known| known.bytes).sum::<usize>() > MAX_BYTES
                {
                    model.remove(0);
                }
            }
            _ => {
                let found = table.get(&key, at);
                let place = model.iter().position(|known| known.key == key);
                let known = place.map(|place| model.remove(place));
                let known = known.filter(|known| now < known.over);
                let expected =
                    known.map(|known| (known.number, Duration::from_millis(now - known.at)));
                model.extend(known);
                assert_eq!(found, expected, "trace {seed} step {number}");
            }
        }
        let bytes: usize = model.iter().map(|known| known.bytes).sum();
        assert_eq!(
            (table.len(), table.bytes(), table.order.len()),
            (model.len(), bytes, model.len()),
            "trace {seed} step {number}"
        );
    }
}

// `MESH_TRACES=1000000` follows all of a million.
#[test]
fn the_newest_good_answer_is_given_and_what_was_used_longest_ago_goes_first() {
    let asked = std::env::var("MESH_TRACES").ok();
    let traces = asked.map_or(5000, |count| count.parse().unwrap());
    let start = tokio::time::Instant::now().into_std();
    for seed in 0..traces {
        follow(seed, start);
    }
}
