//! Picks from one list: first the priority, then the zone, then the endpoint.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use super::config::BalanceConfig;
use super::endpoint::Endpoint;
use super::group::{Choice, Group};
use super::hash::{nth, scale};
use super::share::{self, WHOLE};
use super::subset::{Labels, Subset};
use crate::random::Random;

/// Picks endpoints from one list. Shared by reference; a pick takes no lock and allocates nothing.
pub struct Picker {
    config: BalanceConfig,
    /// By priority.
    levels: Box<[Level]>,
    /// Since when milliseconds are counted.
    epoch: Instant,
    /// When shares are looked at again; never where nothing follows from them.
    look_at: AtomicU64,
}

/// The endpoints of one priority.
#[derive(Debug)]
struct Level {
    /// How many there are, usable or not.
    total: usize,
    /// The usable ones of the zone that is preferred.
    near: Option<Group>,
    /// All other usable ones.
    rest: Option<Group>,
    /// All of them, where that is not the same.
    all: Option<Group>,
    zones: usize,
    /// Draws below this, of 1,000, and not below that of the level before, begin here.
    up_to: AtomicU32,
    /// Draws below this, of 1,000, stay in the zone.
    stay: AtomicU32,
    health: AtomicU32,
    healthy: AtomicU32,
    is_panic: AtomicBool,
}

/// What one call asks of a [`Picker`].
#[non_exhaustive]
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The time.
    pub now: Instant,
    /// What is drawn with.
    pub random: &'a dyn Random,
    /// The places of those that earlier attempts of the same call went to.
    pub tried: &'a [usize],
    /// What the policies by hash go by; without one, chance decides.
    pub hash: Option<u64>,
}

impl<'a> Ask<'a> {
    /// Asks for any endpoint.
    pub const fn new(now: Instant, random: &'a dyn Random) -> Self {
        Self {
            now,
            random,
            tried: &[],
            hash: None,
        }
    }

    /// Asks for another one than those, where there is another.
    #[must_use]
    pub const fn with_tried(mut self, tried: &'a [usize]) -> Self {
        self.tried = tried;
        self
    }

    /// Asks for the one that calls with that hash go to; [`hash`](super::hash) makes one of a text. Other policies than
    /// those by hash ignore it.
    #[must_use]
    pub const fn with_hash(mut self, hash: u64) -> Self {
        self.hash = Some(hash);
        self
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("tried", &self.tried)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl Picker {
    /// Prepares to pick from `endpoints`. Time and memory grow with their number; for a weighted round robin up to 4,096
    /// turns, for the policies by hash the ring or the table come to that, once for each group: a priority, or its part
    /// in a zone and its part outside.
    ///
    /// `config` should have been [checked](BalanceConfig::check); one that makes no sense makes the balance poor, no more:
    /// what sizes memory is taken into its range.
    pub fn new<E: Endpoint>(config: &BalanceConfig, endpoints: &[E], now: Instant) -> Self {
        let all = (0..endpoints.len()).collect::<Vec<_>>();
        Self::of(config, endpoints, &all, now)
    }

    /// Prepares to pick from those of `endpoints` that belong to `subset`; places are still those of the whole list.
    pub fn among<E: Endpoint + Labels>(
        config: &BalanceConfig,
        endpoints: &[E],
        subset: &Subset,
        now: Instant,
    ) -> Self {
        Self::of(config, endpoints, &subset.members(endpoints), now)
    }

    fn of<E: Endpoint>(
        config: &BalanceConfig,
        endpoints: &[E],
        members: &[usize],
        now: Instant,
    ) -> Self {
        let mut priorities = std::collections::BTreeMap::<u16, Vec<u32>>::new();
        for index in members {
            if let (Some(endpoint), Ok(place)) = (endpoints.get(*index), u32::try_from(*index)) {
                let level = priorities.entry(endpoint.priority()).or_default();
                level.push(place);
            }
        }
        let is_any = priorities
            .values()
            .flatten()
            .filter_map(|index| endpoints.get(*index as usize))
            .any(Endpoint::is_usable);
        let levels: Box<[Level]> = priorities
            .into_values()
            .map(|level| Level::new(config, endpoints, &level, !is_any))
            .collect();
        let is_looked_at = levels.len() > 1
            || config.panic_threshold > 0.0
            || levels.iter().any(|level| level.near.is_some());
        let picker = Self {
            config: config.clone(),
            levels,
            epoch: now,
            look_at: AtomicU64::new(LOOK_EVERY),
        };
        picker.look(endpoints, now);
        // A panic ends by itself, and is seen to have ended by looking again.
        let is_panic = |level: &Level| level.is_panic.load(Ordering::Relaxed);
        if !is_looked_at && !picker.levels.iter().any(is_panic) {
            picker.look_at.store(u64::MAX, Ordering::Relaxed);
        }
        picker
    }

    /// Returns the place in `endpoints` of the one to call, or `None` if there is none at all.
    ///
    /// `endpoints` is the list that the picker was made for. Preferred are endpoints neither tried nor ejected, then tried
    /// ones, then ejected ones: when everything is ejected, calling somebody is better than calling nobody.
    pub fn pick<E: Endpoint>(&self, endpoints: &[E], ask: &Ask<'_>) -> Option<usize> {
        if self.millis(ask.now) >= self.look_at.load(Ordering::Relaxed) {
            self.look_again(endpoints, ask.now);
        }
        let hash = match ask.hash {
            Some(hash) => hash,
            None if self.config.policy.is_by_hash() => ask.random.next_u64(),
            None => 0,
        };
        let mut choice = Choice {
            endpoints,
            tried: ask.tried,
            hash,
            random: ask.random,
            now: ask.now,
            config: &self.config,
            is_panic: false,
        };
        let drawn = self.draw(&choice);
        let others = (0..self.levels.len()).filter(|level| *level != drawn);
        std::iter::once(drawn)
            .chain(others)
            .find_map(|level| self.levels.get(level)?.pick(&mut choice))
            .or_else(|| self.best_of_all(&mut choice))
    }

    /// Takes in how long a call took: needed by [`Policy::PeakEwma`](super::Policy::PeakEwma), ignored by others.
    pub fn observe<E: Endpoint>(
        &self,
        endpoint: &E,
        latency: std::time::Duration,
        is_failure: bool,
        now: Instant,
    ) {
        if self.config.policy == super::Policy::PeakEwma {
            let decay = self.config.latency_decay;
            endpoint.state().observe(latency, is_failure, decay, now);
        }
    }

    /// Returns how it picks.
    pub const fn config(&self) -> &BalanceConfig {
        &self.config
    }

    /// Returns the shares of the priorities, the first first, for people to look at.
    pub fn snapshot(&self) -> Vec<LevelSnapshot> {
        let mut before = 0;
        let level = |level: &Level| {
            let up_to = level.up_to.load(Ordering::Relaxed);
            let share = up_to.saturating_sub(std::mem::replace(&mut before, up_to));
            LevelSnapshot {
                endpoints: level.total,
                healthy: level.healthy.load(Ordering::Relaxed) as usize,
                share: part(share),
                in_zone: level
                    .near
                    .as_ref()
                    .map(|_| part(level.stay.load(Ordering::Relaxed))),
                is_panic: level.is_panic.load(Ordering::Relaxed),
            }
        };
        self.levels.iter().map(level).collect()
    }

    /// The level that a call begins at.
    fn draw<E>(&self, choice: &Choice<'_, E>) -> usize {
        // Nearly always there is one, or the first takes all.
        let up_to = |level: &Level| level.up_to.load(Ordering::Relaxed);
        if self
            .levels
            .first()
            .is_none_or(|first| up_to(first) >= WHOLE)
        {
            return 0;
        }
        let drawn = thousandth(choice, FOR_LEVEL);
        let found = self.levels.iter().position(|level| drawn < up_to(level));
        found.unwrap_or_default()
    }

    /// Whoever is left: usable ones first, the first priority first.
    fn best_of_all<E: Endpoint>(&self, choice: &mut Choice<'_, E>) -> Option<usize> {
        let tried = choice.tried;
        for (tried, is_panic) in [(&[][..], false), (tried, true), (&[], true)] {
            (choice.tried, choice.is_panic) = (tried, is_panic);
            let usable = self.levels.iter().flat_map(Level::usable);
            let all = self.levels.iter().filter_map(|level| level.all.as_ref());
            let found = usable.chain(all).find_map(|group| group.pick(choice));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Looks at the shares again, by one thread.
    #[cold]
    fn look_again<E: Endpoint>(&self, endpoints: &[E], now: Instant) {
        let (due, next) = (
            self.look_at.load(Ordering::Relaxed),
            self.millis(now).saturating_add(LOOK_EVERY),
        );
        let mine = self
            .look_at
            .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if mine.is_ok() {
            self.look(endpoints, now);
        }
    }

    fn look<E: Endpoint>(&self, endpoints: &[E], now: Instant) {
        let mut whole = 0;
        for level in &self.levels {
            let (near, near_weight) = healthy(endpoints, level.near.as_ref(), now);
            let (rest, rest_weight) = healthy(endpoints, level.rest.as_ref(), now);
            let health = share::health(near + rest, level.total);
            whole += health;
            level.health.store(health, Ordering::Relaxed);
            let healthy = u32::try_from(near + rest).unwrap_or(u32::MAX);
            level.healthy.store(healthy, Ordering::Relaxed);
            if let Some(zone) = &self.config.zone_aware {
                let all = near_weight + rest_weight;
                let stay = share::near(near_weight, all, level.zones, zone.factor);
                level.stay.store(stay, Ordering::Relaxed);
            }
        }
        let mut before = 0;
        for level in &self.levels {
            let (health, healthy) = (
                level.health.load(Ordering::Relaxed),
                level.healthy.load(Ordering::Relaxed) as usize,
            );
            before += share::part(health, whole, before);
            level.up_to.store(before, Ordering::Relaxed);
            let threshold = self.config.panic_threshold;
            let is_panic = share::is_panic(healthy, level.total, whole, threshold);
            level.is_panic.store(is_panic, Ordering::Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX - 1)
    }
}

impl fmt::Debug for Picker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker")
            .field("config", &self.config)
            .field("levels", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// How one priority of a list does.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct LevelSnapshot {
    /// How many endpoints it has.
    pub endpoints: usize,
    /// How many of them are usable and not ejected, as of the last look.
    pub healthy: usize,
    /// Its part of the calls, 0 to 1.
    pub share: f64,
    /// The part of these that stays in the preferred zone, where that has endpoints and is not the only one.
    pub in_zone: Option<f64>,
    /// Whether health is ignored.
    pub is_panic: bool,
}

impl Level {
    /// `is_panic` where no endpoint of any priority is usable.
    fn new<E: Endpoint>(
        config: &BalanceConfig,
        endpoints: &[E],
        level: &[u32],
        is_panic: bool,
    ) -> Self {
        let total = level.len();
        let at = |index: &u32| endpoints.get(*index as usize);
        let usable: Vec<u32> = level
            .iter()
            .copied()
            .filter(|index| at(index).is_some_and(Endpoint::is_usable))
            .collect();
        let is_partly = usable.len() < total && config.panic_threshold > 0.0;
        let group = |members: Vec<u32>| {
            (!members.is_empty()).then(|| Group::new(config, endpoints, members))
        };
        let all = (is_panic || is_partly).then(|| level.to_vec());
        let (zones, near, rest) = match &config.zone_aware {
            Some(zone) => {
                let zone_of = |index: &u32| at(index).and_then(Endpoint::zone);
                let is_near = |index: &u32| zone_of(index) == Some(&*zone.zone);
                let mut zones: std::collections::BTreeSet<Option<&str>> =
                    usable.iter().map(zone_of).collect();
                zones.insert(Some(&*zone.zone));
                let (near, rest): (Vec<u32>, Vec<u32>) = usable.iter().copied().partition(is_near);
                (zones.len(), near, rest)
            }
            None => (1, Vec::new(), usable),
        };
        // One zone alone is nothing to choose from.
        let (near, rest) = if rest.is_empty() {
            (Vec::new(), near)
        } else {
            (near, rest)
        };
        Self {
            total,
            near: group(near),
            rest: group(rest),
            all: all.and_then(group),
            zones,
            up_to: AtomicU32::new(WHOLE),
            stay: AtomicU32::new(0),
            health: AtomicU32::new(0),
            healthy: AtomicU32::new(0),
            is_panic: AtomicBool::new(is_panic),
        }
    }

    fn usable(&self) -> impl Iterator<Item = &Group> {
        self.near.iter().chain(&self.rest)
    }

    /// A good endpoint of this priority.
    fn pick<E: Endpoint>(&self, choice: &mut Choice<'_, E>) -> Option<usize> {
        if self.is_panic.load(Ordering::Relaxed) {
            choice.is_panic = true;
            let all = self.all.as_ref();
            return all
                .and_then(|all| all.pick(choice))
                .or_else(|| self.pick_usable(choice));
        }
        choice.is_panic = false;
        self.pick_usable(choice)
    }

    fn pick_usable<E: Endpoint>(&self, choice: &Choice<'_, E>) -> Option<usize> {
        let (Some(near), Some(rest)) = (&self.near, &self.rest) else {
            return self.usable().find_map(|group| group.pick(choice));
        };
        let stay = self.stay.load(Ordering::Relaxed);
        let (first, second) = if stay >= WHOLE || thousandth(choice, FOR_ZONE) < stay {
            (near, rest)
        } else {
            (rest, near)
        };
        first.pick(choice).or_else(|| second.pick(choice))
    }
}

/// How many of a group are not ejected, and their weight.
fn healthy<E: Endpoint>(endpoints: &[E], group: Option<&Group>, now: Instant) -> (usize, u64) {
    let members = group.map(Group::members).unwrap_or_default();
    members
        .iter()
        .filter_map(|index| endpoints.get(*index as usize))
        .filter(|endpoint| !endpoint.state().is_ejected(now))
        .fold((0, 0), |(count, weight), endpoint| {
            (count + 1, weight + u64::from(endpoint.weight().max(1)))
        })
}

/// A number in `0..1000`: by chance, or, for the policies by hash, always the same for the same hash.
fn thousandth<E>(choice: &Choice<'_, E>, purpose: u64) -> u32 {
    let bits = if choice.config.policy.is_by_hash() {
        nth(choice.hash, purpose)
    } else {
        choice.random.next_u64()
    };
    u32::try_from(scale(bits, WHOLE as usize)).unwrap_or_default()
}

fn part(thousandths: u32) -> f64 {
    f64::from(thousandths) / f64::from(WHOLE)
}

/// Milliseconds from one look at the shares to the next: an ejected endpoint is passed over at once, and what follows from
/// it for zones and priorities comes this much later at most.
const LOOK_EVERY: u64 = 100;
const FOR_LEVEL: u64 = u64::MAX - 1;
const FOR_ZONE: u64 = u64::MAX;
