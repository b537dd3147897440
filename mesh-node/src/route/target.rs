//! Where the calls of a route go.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::config::SubsetConfig;

/// The places that a route's calls are split between, at least one.
#[derive(Clone, Debug)]
pub struct Targets {
    list: Box<[Target]>,
    /// The sum of the weights, more than 0.
    total: u64,
}

/// One of the places.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Target {
    /// The service; none where it is the one that was called.
    pub service: Option<Arc<str>>,
    /// Which of its endpoints.
    pub subset: Option<Arc<SubsetConfig>>,
    /// Its share, beside those of the others.
    pub weight: u32,
}

/// By what a caller is known again.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Sticky {
    /// By the value of a header field.
    Header(HeaderName),
    /// By a cookie that this node sets.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// How long a caller keeps it; none where the browser decides.
        ttl: Option<Duration>,
    },
}

impl Targets {
    /// None where no target has a weight.
    pub(super) fn new(list: Vec<Target>) -> Option<Self> {
        let list = if list.is_empty() {
            vec![Target {
                weight: 1,
                ..Target::default()
            }]
        } else {
            list
        };
        let total = list.iter().map(|target| u64::from(target.weight)).sum();
        (total > 0).then(|| Self {
            list: list.into(),
            total,
        })
    }

    /// All of them, in their order.
    pub fn all(&self) -> &[Target] {
        &self.list
    }

    /// The sum of the weights.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The place of the target that `draw` falls on, where draws are even among all numbers.
    pub fn pick(&self, draw: u64) -> usize {
        // As in Lemire, "Fast random integer generation in an interval" (2019).
        let mut point = (u128::from(draw) * u128::from(self.total)) >> 64;
        for (target, index) in self.list.iter().zip(0..) {
            let weight = u128::from(target.weight);
            if point < weight {
                return index;
            }
            point -= weight;
        }
        // The point is below the sum of the weights.
        0
    }
}

/// Largest weight: the sum of all stays far from the end of a number.
pub(super) const MAX_WEIGHT: u32 = 1_000_000;
