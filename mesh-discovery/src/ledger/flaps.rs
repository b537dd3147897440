//! Endpoints that come and go too often are left out until they are calm.
//!
//! # Sources
//!
//! Route flap damping, RFC 2439 section 4: a figure of merit for each route that grows with each change and decays
//! exponentially, one limit that suppresses and a lower one that lets it be used again, and a ceiling, so that no route
//! is suppressed for long after its last change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::endpoint::MAX_ENDPOINTS_PER_SERVICE;
use crate::ledger::Damping;
use crate::ledger::guard::Turn;

/// The endpoints that changed lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps {
    table: HashMap<String, Flap>,
}

#[derive(Clone, Debug)]
struct Flap {
    penalty: f64,
    at: Instant,
    suppressed_since: Option<Instant>,
}

impl Flaps {
    /// Takes a change in.
    pub(super) fn turn(&mut self, now: Instant, endpoint: &Endpoint, turn: Turn, rules: &Damping) {
        // One that is new, and of which nothing is remembered, has not come back.
        let is_news = turn == Turn::New || self.table.len() >= MAX_FLAPS;
        if is_news && !self.table.contains_key(&endpoint.id) {
            return;
        }
        let flap = self.table.entry(endpoint.id.clone()).or_insert(Flap {
            penalty: 0.0,
            at: now,
            suppressed_since: None,
        });
        let ceiling = rules.reuse * CEILING;
        flap.penalty = (flap.penalty_at(now, rules) + 1.0).min(ceiling.max(rules.suppress));
        flap.at = now;
        if flap.penalty >= rules.suppress {
            flap.suppressed_since.get_or_insert(now);
        }
    }

    /// Lets time pass: true when an endpoint may be used again.
    pub(super) fn pass(&mut self, now: Instant, rules: &Damping) -> bool {
        let mut is_changed = false;
        self.table.retain(|_, flap| {
            let penalty = flap.penalty_at(now, rules);
            if penalty <= rules.reuse {
                is_changed |= flap.suppressed_since.take().is_some();
            }
            penalty > FORGOTTEN || flap.suppressed_since.is_some()
        });
        is_changed
    }

    /// Which endpoints of a list are to be left out, and since when: never more than half of it, and never more than
    /// half of those that work.
    pub(super) fn left_out<'a>(
        &self,
        view: &'a [Arc<Endpoint>],
    ) -> Vec<(&'a Arc<Endpoint>, Instant)> {
        if self.table.is_empty() {
            return Vec::new();
        }
        let suppressed = |endpoint: &'a Arc<Endpoint>| {
            Some((endpoint, self.table.get(&endpoint.id)?.suppressed_since?))
        };
        let mut out: Vec<_> = view.iter().filter_map(suppressed).collect();
        // By age, so that those who are left out stay the same when not all can be.
        out.sort_by(|(a, a_since), (b, b_since)| (a_since, &a.id).cmp(&(b_since, &b.id)));
        let good = view.iter().filter(|one| one.condition.is_usable()).count();
        let mut room_good = good / 2;
        out.retain(|(endpoint, _)| {
            if !endpoint.condition.is_usable() {
                return true;
            }
            let has_room = room_good > 0;
            room_good = room_good.saturating_sub(1);
            has_room
        });
        out.truncate(view.len() / 2);
        out
    }

    /// When [`Self::pass`] has something to do.
    pub(super) fn next_due(&self, now: Instant, rules: &Damping) -> Option<Instant> {
        if self.table.is_empty() {
            return None;
        }
        let suppressed = self
            .table
            .values()
            .filter(|flap| flap.suppressed_since.is_some());
        let calm = suppressed
            .map(|flap| flap.calm_at(rules).max(now + TICK))
            .min();
        // What is remembered of others goes with the next sweep.
        let sweep = now + rules.half_life;
        Some(calm.map_or(sweep, |calm| calm.min(sweep)))
    }
}

impl Flap {
    fn penalty_at(&self, now: Instant, rules: &Damping) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.penalty * (-passed / rules.half_life.as_secs_f64()).exp2()
    }

    /// When the penalty is down to the limit; a little later, for the sake of rounding.
    fn calm_at(&self, rules: &Damping) -> Instant {
        let halvings = (self.penalty / rules.reuse).log2().max(0.0);
        self.at + rules.half_life.mul_f64(halvings) + TICK
    }
}

/// A ceiling of eight times the limit of reuse is three half-lives.
const CEILING: f64 = 8.0;
/// A single change is forgotten after a half-life.
const FORGOTTEN: f64 = 0.5;
const TICK: Duration = Duration::from_millis(1);
/// As many as a list has. In a service that changes more the rest is not damped.
const MAX_FLAPS: usize = MAX_ENDPOINTS_PER_SERVICE;
