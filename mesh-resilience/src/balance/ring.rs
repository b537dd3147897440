//! Ring hash: each endpoint has many points on a circle, and a key belongs to the next point.
//!
//! With `k` points an endpoint, its share has a relative standard deviation of `1 / sqrt(k)`: 8 % for the 160 that ketama
//! has. Who goes takes only its own points away, and who comes takes only what falls to its own.

use super::hash::{hash, nth};

#[derive(Debug)]
pub(super) struct Ring {
    /// Ascending.
    points: Box<[u64]>,
    /// Who owns the point of the same place.
    owners: Box<[u32]>,
}

impl Ring {
    /// Places members with a key and a weight each: one of weight 1 at `points` places, or at twice, four times, eight times
    /// less as the weights and `max` want it. So the number stays the same in most lists, and who comes or goes moves
    /// nothing else.
    pub(super) fn new(members: &[(&[u8], u32)], points: u32, max: u32) -> Self {
        let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mean = total / (members.len().max(1) as u64);
        // The mean weight, or up to twice less.
        let mut shift = mean.max(1).ilog2();
        let scale = u64::from(points);
        while total.saturating_mul(scale) >> shift > u64::from(max) && shift < u64::BITS - 1 {
            shift += 1;
        }
        let mut points: Vec<(u64, u32)> = Vec::new();
        for (index, (key, weight)) in (0_u32..).zip(members) {
            let count = u64::from(*weight).saturating_mul(scale) >> shift;
            let base = hash(key);
            points.extend((0..count.max(1)).map(|number| (nth(base, number), index)));
        }
        points.sort_unstable();
        let (points, owners): (Vec<u64>, Vec<u32>) = points.into_iter().unzip();
        Self {
            points: points.into_boxed_slice(),
            owners: owners.into_boxed_slice(),
        }
    }

    /// The owner of a key, and then those of the points after it, each point once.
    pub(super) fn owners_of(&self, hash: u64) -> impl Iterator<Item = usize> {
        let at = self.points.partition_point(|point| *point < hash);
        let (before, after) = self.owners.split_at_checked(at).unwrap_or_default();
        after.iter().chain(before).map(|owner| *owner as usize)
    }
}
