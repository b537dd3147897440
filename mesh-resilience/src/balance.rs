//! Load balancing: which endpoint of a service gets the next attempt.
//!
//! A caller keeps one [`EndpointState`] for each endpoint across changes of the endpoint list, builds a [`Picker`] for each
//! list, asks it for an index, holds [`EndpointState::begin`]'s guard during the call, and reports to [`Outliers`].
//!
//! An endpoint that fails fast has few calls in flight and would attract more. So recent failures count as load: with a
//! failure ratio `f` (an exponential average over some eight calls, halved every 5 s), `(calls + 1) * (1 + 64 f²)`
//! is compared. One failure doubles the load, four make it twelvefold, and the fifth in a row ejects the endpoint.
//!
//! # Sources
//!
//! - Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
//! - Vose, "A Linear Algorithm For Generating Random Numbers With a Given Distribution", 1991 (alias tables).
//! - nginx, `ngx_http_upstream_round_robin.c` (smooth weighted round robin).
//! - Envoy, "Outlier detection" (ejection time, share and back-off).

mod endpoint;
mod outlier;
mod subset;
mod weight;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use self::weight::{Alias, schedule};
use crate::random::Random;

pub use self::endpoint::{Endpoint, EndpointState, InFlight};
pub use self::outlier::{OutlierConfig, Outliers};
pub use self::subset::{Label, Labels, Subset};

/// How an endpoint is chosen.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Policy {
    /// The less loaded of two drawn at random by weight; load is relative to weight. The default.
    #[default]
    LeastRequest,
    /// One after the other, each as often as its weight says.
    RoundRobin,
    /// At random by weight.
    Random,
}

/// Picks endpoints from one list. Shared by reference; never blocks and never allocates.
pub struct Picker {
    policy: Policy,
    len: usize,
    /// `None` if all weights are equal.
    alias: Option<Alias>,
    mean_weight: f64,
    /// The order of a weighted round robin; empty if all weights are equal.
    schedule: Box<[u32]>,
    cursor: AtomicUsize,
}

impl Picker {
    /// Prepares to pick from `endpoints`: time and memory grow with their number and, for round robin, up to 4,096 steps.
    pub fn new<E: Endpoint>(policy: Policy, endpoints: &[E]) -> Self {
        let weights: Vec<u32> = endpoints
            .iter()
            .map(|endpoint| endpoint.weight().max(1))
            .collect();
        let is_equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        let is_scheduled = policy == Policy::RoundRobin && !is_equal;
        Self {
            policy,
            len: endpoints.len(),
            alias: (!is_equal).then(|| Alias::new(&weights)),
            mean_weight: weight::mean(&weights),
            schedule: if is_scheduled {
                schedule(&weights)
            } else {
                Box::default()
            },
            cursor: AtomicUsize::new(0),
        }
    }

    /// Returns the index of the endpoint to call, or `None` if there is none at all.
    ///
    /// `endpoints` is the list that the picker was made for; `tried` are the indexes that earlier attempts of the same
    /// request used. Preferred are endpoints neither tried nor ejected, then tried ones, then ejected ones: when
    /// everything is ejected, calling somebody is better than calling nobody.
    pub fn pick<E: Endpoint>(
        &self,
        endpoints: &[E],
        tried: &[usize],
        random: &dyn Random,
        now: Instant,
    ) -> Option<usize> {
        let choice = Choice {
            endpoints,
            tried,
            now,
            mean_weight: self.mean_weight,
        };
        let picked = match self.policy {
            Policy::LeastRequest => self.least_request(&choice, random),
            Policy::RoundRobin => self.round_robin(&choice),
            Policy::Random => self.draw(&choice, random),
        };
        picked.or_else(|| choice.best_of_all(random))
    }

    fn least_request<E: Endpoint>(
        &self,
        choice: &Choice<'_, E>,
        random: &dyn Random,
    ) -> Option<usize> {
        let first = self.draw(choice, random)?;
        let second = self.draw_other(choice, first, random);
        Some(match second {
            // The first wins a tie: it was drawn by weight.
            Some(second) if choice.cost(second) < choice.cost(first) => second,
            _ => first,
        })
    }

    fn round_robin<E: Endpoint>(&self, choice: &Choice<'_, E>) -> Option<usize> {
        let len = if self.schedule.is_empty() {
            choice.endpoints.len()
        } else {
            self.schedule.len()
        };
        (0..MAX_STEPS.min(len)).find_map(|_| {
            let step = self.cursor.fetch_add(1, Ordering::Relaxed) % len;
            let index = self
                .schedule
                .get(step)
                .map_or(step, |index| *index as usize);
            choice.is_good(index).then_some(index)
        })
    }

    /// Draws a good endpoint by weight; `None` when a few draws gave none.
    fn draw<E: Endpoint>(&self, choice: &Choice<'_, E>, random: &dyn Random) -> Option<usize> {
        (0..MAX_DRAWS)
            .map(|_| self.draw_any(choice, random))
            .find(|index| choice.is_good(*index))
    }

    /// Draws a good endpoint that is not `first`.
    fn draw_other<E: Endpoint>(
        &self,
        choice: &Choice<'_, E>,
        first: usize,
        random: &dyn Random,
    ) -> Option<usize> {
        let others = choice
            .endpoints
            .len()
            .checked_sub(1)
            .filter(|others| *others > 0)?;
        (0..MAX_DRAWS).find_map(|draw| {
            // By weight first; then evenly among the others, which can't draw `first` again.
            let even = || {
                let index = random.below(others);
                index + usize::from(index >= first)
            };
            let index = if self.alias.is_some() && draw < MAX_DRAWS / 2 {
                self.draw_any(choice, random)
            } else {
                even()
            };
            (index != first && choice.is_good(index)).then_some(index)
        })
    }

    fn draw_any<E: Endpoint>(&self, choice: &Choice<'_, E>, random: &dyn Random) -> usize {
        match &self.alias {
            Some(alias) if self.len == choice.endpoints.len() => alias.draw(random),
            _ => random.below(choice.endpoints.len()),
        }
    }
}

impl fmt::Debug for Picker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker")
            .field("policy", &self.policy)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// What one pick looks at.
struct Choice<'a, E> {
    endpoints: &'a [E],
    tried: &'a [usize],
    now: Instant,
    mean_weight: f64,
}

impl<E: Endpoint> Choice<'_, E> {
    fn is_good(&self, index: usize) -> bool {
        self.endpoints
            .get(index)
            .is_some_and(|endpoint| !endpoint.state().is_ejected(self.now))
            && !self.tried.contains(&index)
    }

    fn cost(&self, index: usize) -> f64 {
        self.endpoints.get(index).map_or(f64::INFINITY, |endpoint| {
            let share = f64::from(endpoint.weight().max(1)) / self.mean_weight;
            endpoint.state().cost(share, self.now)
        })
    }

    /// Looks at every endpoint: for when most are tried or ejected. Begins at random, so that equals share.
    fn best_of_all(&self, random: &dyn Random) -> Option<usize> {
        let len = self.endpoints.len();
        let start = random.below(len);
        let rank = |index: usize| {
            let is_ejected = self.endpoints[index].state().is_ejected(self.now);
            (is_ejected, self.tried.contains(&index))
        };
        (0..len)
            .map(|step| (start + step) % len)
            .min_by(|one, other| {
                rank(*one)
                    .cmp(&rank(*other))
                    .then_with(|| self.cost(*one).total_cmp(&self.cost(*other)))
            })
    }
}

/// Draws before looking at every endpoint. At most half are ejected, so that one in sixteen picks gets there.
const MAX_DRAWS: usize = 4;
const MAX_STEPS: usize = 16;

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Picker>();
    assert_send_sync::<EndpointState>();
    assert_send_sync::<Outliers>();
};

#[cfg(test)]
mod tests;
