//! Maglev hashing: a table in which each endpoint fills places in an order of its own, in turn, so that all fill alike.
//!
//! # Sources
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4: with a table of
//! `m` places and `n` endpoints of one weight, shares differ by at most one place; filling takes `m ln m` steps on average.

use super::hash::{hash, nth, scale};

#[derive(Debug)]
pub(super) struct Maglev {
    table: Box<[u32]>,
}

/// One endpoint's order of places: a permutation of all, since the size is a prime.
struct Order {
    next: u64,
    skip: u64,
}

impl Maglev {
    /// Fills a table of `size` places, two at least, and a prime: else it has gaps. `turns` is one round of whose turn it is, of places in `keys`.
    pub(super) fn new(keys: &[&[u8]], turns: &[u32], size: u32) -> Self {
        let size = u64::from(size);
        let mut orders: Vec<Order> = keys
            .iter()
            .map(|key| {
                let base = hash(key);
                Order {
                    next: nth(base, 1) % size,
                    skip: nth(base, 2) % (size - 1) + 1,
                }
            })
            .collect();
        let mut table = vec![EMPTY; usize::try_from(size).unwrap_or_default()];
        let places = table.len();
        let turns = turns.iter().cycle().take(places);
        for turn in turns {
            let Some(order) = orders.get_mut(*turn as usize) else {
                continue;
            };
            // There is an empty place left, and the order comes past all.
            for _ in 0..places {
                let place = usize::try_from(order.next).unwrap_or_default();
                order.next = (order.next + order.skip) % size;
                if let Some(place) = table.get_mut(place).filter(|place| **place == EMPTY) {
                    *place = *turn;
                    break;
                }
            }
        }
        Self {
            table: table.into_boxed_slice(),
        }
    }

    /// The owner of a key, and then those of places that its hash leads to further on, without end.
    pub(super) fn owners_of(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = scale(hash, self.table.len());
        let next = (1..).map(move |number| scale(nth(hash, number), self.table.len()));
        std::iter::once(first)
            .chain(next)
            .map_while(|place| self.table.get(place).map(|owner| *owner as usize))
    }
}

const EMPTY: u32 = u32::MAX;
