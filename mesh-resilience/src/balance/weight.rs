//! Choosing by weight in constant time.

use crate::random::Random;

/// Vose's alias table: one column for each endpoint, shared with at most one other.
#[derive(Debug)]
pub(super) struct Alias {
    columns: Box<[Column]>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// The part of the column, as a fraction of 2^32, that is its own.
    own: u64,
    other: u32,
}

impl Alias {
    pub(super) fn new(weights: &[u32]) -> Self {
        let total: u64 = weights.iter().copied().map(u64::from).sum::<u64>().max(1);
        let len = weights.len() as u64;
        // Scaled so that a full column is `total`.
        let mut left: Vec<u64> = weights
            .iter()
            .map(|weight| u64::from(*weight) * len)
            .collect();
        let mut columns: Vec<Column> = (0_u32..)
            .take(weights.len())
            .map(|index| Column {
                own: FULL,
                other: index,
            })
            .collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0_u32..)
            .take(weights.len())
            .partition(|index| left[*index as usize] < total);
        while let (Some(under), Some(over)) = (small.pop(), large.pop()) {
            let own = u128::from(left[under as usize]) * u128::from(FULL) / u128::from(total);
            columns[under as usize] = Column {
                own: u64::try_from(own).unwrap_or(FULL),
                other: over,
            };
            left[over as usize] -= total - left[under as usize];
            if left[over as usize] < total {
                small.push(over);
            } else {
                large.push(over);
            }
        }
        Self {
            columns: columns.into_boxed_slice(),
        }
    }

    pub(super) fn draw(&self, random: &dyn Random) -> usize {
        let index = random.below(self.columns.len());
        let Some(column) = self.columns.get(index) else {
            return 0;
        };
        let is_own = random.next_u64() >> 32 < column.own;
        if is_own { index } else { column.other as usize }
    }
}

/// Returns a round in which each index comes as often as its weight, evenly spread: its `k`th turn of `w` stands at
/// `(2k + 1) / 2w` of the round (Webster's method), so that no beginning of the round gives one a whole turn more or less
/// than its due.
///
/// Weights are scaled down together, to no less than 1, if the round would take more than [`MAX_ROUND`] steps.
pub(super) fn schedule(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights
        .iter()
        .copied()
        .fold(0, greatest_common_divisor)
        .max(1);
    let total: u64 = weights
        .iter()
        .map(|weight| u64::from(weight / divisor))
        .sum();
    let steps = MAX_ROUND.max(weights.len() as u64);
    let scaled = |weight: u32| {
        let weight = u64::from(weight / divisor);
        if total <= steps {
            weight
        } else {
            (weight * steps / total).max(1)
        }
    };
    let mut turns: Vec<(u64, u32)> = Vec::new();
    for (index, weight) in (0_u32..).zip(weights) {
        let weight = scaled(*weight);
        // As a fraction of 2^32: there are fewer turns than that, and far fewer than would make two of one meet.
        turns.extend((0..weight).map(|turn| ((2 * turn + 1) * FULL / (2 * weight), index)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, index)| index).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sums of weights are far below 2^53"
)]
pub(super) fn mean(weights: &[u32]) -> f64 {
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    (total as f64 / weights.len().max(1) as f64).max(1.0)
}

const fn greatest_common_divisor(mut one: u32, mut other: u32) -> u32 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

const FULL: u64 = 1 << 32;
/// Steps of a weighted round, which bounds the time and memory of a list.
const MAX_ROUND: u64 = 4_096;
