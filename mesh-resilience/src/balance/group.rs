//! One policy over some of the endpoints of a list.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::config::{BalanceConfig, Policy, SlowStart};
use super::endpoint::Endpoint;
use super::maglev::Maglev;
use super::ring::Ring;
use super::weight::{self, Alias, schedule};
use crate::random::Random;

/// Some of the endpoints of a list, prepared for a policy.
#[derive(Debug)]
pub(super) struct Group {
    /// Their places in the list.
    members: Box<[u32]>,
    /// `None` if all weights are equal.
    alias: Option<Alias>,
    mean_weight: f64,
    method: Method,
}

#[derive(Debug)]
enum Method {
    LeastRequest,
    PeakEwma,
    RoundRobin {
        /// The order of a weighted round; empty if all weights are equal.
        schedule: Box<[u32]>,
        cursor: AtomicUsize,
    },
    Random,
    Ring(Ring),
    Maglev(Maglev),
}

/// What one pick looks at.
pub(super) struct Choice<'a, E> {
    pub(super) endpoints: &'a [E],
    pub(super) tried: &'a [usize],
    pub(super) hash: u64,
    pub(super) random: &'a dyn Random,
    pub(super) now: Instant,
    pub(super) config: &'a BalanceConfig,
    /// Whether ejections do not count.
    pub(super) is_panic: bool,
}

impl Group {
    pub(super) fn new<E: Endpoint>(
        config: &BalanceConfig,
        endpoints: &[E],
        members: Vec<u32>,
    ) -> Self {
        let known = || {
            let at = |index: &u32| endpoints.get(*index as usize);
            members.iter().filter_map(at)
        };
        let weights: Vec<u32> = known().map(|endpoint| endpoint.weight().max(1)).collect();
        let is_equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        let turns = || {
            if is_equal {
                Box::default()
            } else {
                schedule(&weights)
            }
        };
        let places: Vec<String> = members.iter().map(u32::to_string).collect();
        let keys = || -> Vec<&[u8]> {
            let both = known().zip(&places);
            both.map(|(endpoint, place)| endpoint.key().unwrap_or(place).as_bytes())
                .collect()
        };
        let method = match config.policy {
            Policy::LeastRequest => Method::LeastRequest,
            Policy::PeakEwma => Method::PeakEwma,
            Policy::RoundRobin => Method::RoundRobin {
                schedule: turns(),
                cursor: AtomicUsize::new(0),
            },
            Policy::Random => Method::Random,
            Policy::RingHash => {
                let members: Vec<(&[u8], u32)> =
                    keys().into_iter().zip(weights.iter().copied()).collect();
                let (points, max) = config.ring_size();
                Method::Ring(Ring::new(&members, points, max))
            }
            Policy::Maglev => {
                let mut turns = turns();
                if turns.is_empty() {
                    turns = (0_u32..).take(weights.len()).collect();
                }
                Method::Maglev(Maglev::new(&keys(), &turns, config.table_size()))
            }
        };
        Self {
            alias: (!is_equal).then(|| Alias::new(&weights)),
            mean_weight: weight::mean(&weights),
            members: members.into_boxed_slice(),
            method,
        }
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    /// A good endpoint, by its place in the list; nothing where there is none among these.
    pub(super) fn pick<E: Endpoint>(&self, choice: &Choice<'_, E>) -> Option<usize> {
        let cost = |index| self.cost(choice, index);
        let picked = match &self.method {
            Method::LeastRequest | Method::PeakEwma => self.less_loaded(choice),
            Method::RoundRobin { schedule, cursor } => self.next(choice, schedule, cursor),
            Method::Random => self.draw(choice),
            Method::Ring(ring) => self.first_good(choice, ring.owners_of(choice.hash)),
            Method::Maglev(maglev) => self.first_good(choice, maglev.owners_of(choice.hash)),
        };
        picked.or_else(|| {
            // Most are tried or ejected: looks at all, from a random one on, so that equals share.
            let len = self.members.len();
            let start = if choice.config.policy.is_by_hash() {
                super::hash::scale(choice.hash, len)
            } else {
                choice.random.below(len)
            };
            let (before, after) = self.members.split_at_checked(start)?;
            let good = after
                .iter()
                .chain(before)
                .map(|index| *index as usize)
                .filter(|index| choice.is_good(*index));
            if choice.config.policy.is_by_hash() {
                return { good }.next();
            }
            good.map(|index| (cost(index), index))
                .min_by(|(one, _), (other, _)| one.total_cmp(other))
                .map(|(_, index)| index)
        })
    }

    /// What it costs to call an endpoint, relative to others of the group.
    pub(super) fn cost<E: Endpoint>(&self, choice: &Choice<'_, E>, index: usize) -> f64 {
        let Some(endpoint) = choice.endpoints.get(index) else {
            return f64::INFINITY;
        };
        let (state, now) = (endpoint.state(), choice.now);
        let mut share = f64::from(endpoint.weight().max(1)) / self.mean_weight;
        if let Some(slow_start) = &choice.config.slow_start {
            share *= state.ramp(slow_start, now).max(LEAST_SHARE);
        }
        match self.method {
            Method::PeakEwma => state.expected_wait(share, choice.config.latency_decay, now),
            _ => state.cost(share, now),
        }
    }

    fn less_loaded<E: Endpoint>(&self, choice: &Choice<'_, E>) -> Option<usize> {
        let first = self.draw(choice)?;
        Some(match self.draw_other(choice, first) {
            // The first wins a tie: it was drawn by weight.
            Some(second) if self.cost(choice, second) < self.cost(choice, first) => second,
            _ => first,
        })
    }

    fn next<E: Endpoint>(
        &self,
        choice: &Choice<'_, E>,
        schedule: &[u32],
        cursor: &AtomicUsize,
    ) -> Option<usize> {
        let len = if schedule.is_empty() {
            self.members.len()
        } else {
            schedule.len()
        };
        let mut passed = None;
        for _ in 0..MAX_STEPS.min(len) {
            let step = cursor.fetch_add(1, Ordering::Relaxed) % len;
            let place = schedule.get(step).map_or(step, |place| *place as usize);
            let index = self.at(place);
            if !choice.is_good(index) {
                continue;
            }
            if choice.is_ready(index) {
                return Some(index);
            }
            passed = Some(index);
        }
        passed
    }

    /// Draws a good endpoint by weight; `None` when a few draws gave none.
    fn draw<E: Endpoint>(&self, choice: &Choice<'_, E>) -> Option<usize> {
        choice.first_ready(|_| self.draw_any(choice))
    }

    /// Draws a good endpoint that is not `first`.
    fn draw_other<E: Endpoint>(&self, choice: &Choice<'_, E>, first: usize) -> Option<usize> {
        if self.members.len() < 2 {
            return None;
        }
        choice.first_ready(|draw| {
            // By weight first; then evenly.
            let index = if draw < MAX_DRAWS / 2 {
                self.draw_any(choice)
            } else {
                self.at(choice.random.below(self.members.len()))
            };
            if index != first {
                return index;
            }
            // The one beside it is as good a draw as any.
            let next = self.at(choice.random.below(self.members.len()));
            if next == first { NOBODY } else { next }
        })
    }

    /// The first good one of those that a hash leads to, as long as that is not far.
    fn first_good<E: Endpoint>(
        &self,
        choice: &Choice<'_, E>,
        places: impl Iterator<Item = usize>,
    ) -> Option<usize> {
        places
            .take(MAX_STEPS)
            .map(|place| self.at(place))
            .find(|index| choice.is_good(*index))
    }

    fn draw_any<E>(&self, choice: &Choice<'_, E>) -> usize {
        self.at(match &self.alias {
            Some(alias) => alias.draw(choice.random),
            None => choice.random.below(self.members.len()),
        })
    }

    fn at(&self, place: usize) -> usize {
        self.members
            .get(place)
            .map_or(NOBODY, |index| *index as usize)
    }
}

impl<E: Endpoint> Choice<'_, E> {
    /// Whether it may be called: neither tried nor ejected.
    pub(super) fn is_good(&self, index: usize) -> bool {
        self.endpoints
            .get(index)
            .is_some_and(|endpoint| self.is_panic || !endpoint.state().is_ejected(self.now))
            && !self.tried.contains(&index)
    }

    /// The first good one of a few that is let through by its slow start, or else the last good one.
    fn first_ready(&self, draw: impl Fn(usize) -> usize) -> Option<usize> {
        let mut passed = None;
        // Who is refused by its slow start is drawn again, and more often than who is not good.
        let draws = MAX_DRAWS << u32::from(self.config.slow_start.is_some());
        for number in 0..draws {
            let index = draw(number);
            if !self.is_good(index) {
                continue;
            }
            if self.is_ready(index) {
                return Some(index);
            }
            passed = Some(index);
        }
        passed
    }

    /// Whether slow start lets this call through to it: one in so many, as its factor says.
    fn is_ready(&self, index: usize) -> bool {
        let Some(slow_start) = &self.config.slow_start else {
            return true;
        };
        let factor = |slow_start: &SlowStart| {
            let endpoint = self.endpoints.get(index)?;
            Some(endpoint.state().ramp(slow_start, self.now))
        };
        let factor = factor(slow_start).unwrap_or(1.0);
        factor >= 1.0 || self.random.unit() < factor
    }
}

/// The place of no endpoint.
const NOBODY: usize = usize::MAX;
/// Draws before looking at every endpoint. At most half are ejected, so that one in sixteen picks gets there.
const MAX_DRAWS: usize = 4;
/// Steps of a round, or from place to place of a hash, before looking at every endpoint.
const MAX_STEPS: usize = 16;
/// Keeps the load of an endpoint that has just begun a number.
const LEAST_SHARE: f64 = 1e-3;
