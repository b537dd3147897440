//! The log of groups: which calls of one key still count in one window, in a fixed number of 12-bit ticks.
//!
//! ```text
//!   head (one word)                            ring (five ticks a word)
//!   first │ full │ partial │ oldest tick       one tick for each full group: when its last call was admitted
//! ```
//!
//! `group` calls make a full group. The `partial` calls since then are as old as the last call, which the windows of a
//! key share. A tick is a power of two nanoseconds, between a 1,000th and a 2,000th of the period: time becomes ticks by a
//! shift, and twice a period fits 12 bits, so that whatever has left the window is removed before its tick could be
//! mistaken for a new one.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::config::Window;
use super::verdict::Part;
use crate::error::ConfigError;

/// One window as the log sees it. Times are nanoseconds of the limiter's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    limit: u32,
    /// Calls in a full group.
    group: u32,
    /// Full groups that fit the limit.
    capacity: usize,
    period: u64,
    /// A tick is two to the power of this nanoseconds.
    tick_bits: u32,
    /// Ticks that a call counts: a whole period, rounded up so that it never counts too short.
    last_age: u64,
    /// Where this window's words begin in the rings of a key.
    offset: usize,
}

impl Rule {
    #[inline]
    pub(super) fn new(window: &Window, offset: usize) -> Result<Self, ConfigError> {
        window.check()?;
        let limit = window.max_requests.get();
        let period = u64::try_from(window.period.as_nanos()).unwrap_or(u64::MAX);
        let group = group_of(limit);
        let tick = period.div_ceil(MOST_TICKS).next_power_of_two();
        Ok(Self {
            limit,
            group,
            capacity: (limit / group) as usize,
            period,
            tick_bits: tick.ilog2(),
            last_age: period.div_ceil(tick),
            offset,
        })
    }

    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    /// Time from a call until all of the window is free again.
    pub(super) const fn period(&self) -> u64 {
        self.period
    }

    /// Words that the ring takes.
    pub(super) const fn words(&self) -> usize {
        self.capacity.div_ceil(LANES)
    }
}

/// The largest group with `limit - group + 1 >= 0.99 * limit`.
pub(super) const fn group_of(limit: u32) -> u32 {
    limit / 100 + 1
}

/// The calls of one key in one window.
#[derive(Debug)]
pub(super) struct Log<'a> {
    rule: &'a Rule,
    ring: &'a [AtomicU64],
    first: usize,
    full: usize,
    partial: u32,
    oldest: u64,
}

impl<'a> Log<'a> {
    /// Reads a log; `rings` are those of all windows of the key.
    #[inline]
    pub(super) fn new(rule: &'a Rule, head: u64, rings: &'a [AtomicU64]) -> Self {
        Self {
            rule,
            ring: &rings[rule.offset..rule.offset + rule.words()],
            first: usize::from(head.to_le_bytes()[0]),
            full: usize::from(head.to_le_bytes()[1]),
            partial: low_half(head >> 16),
            oldest: head >> 48,
        }
    }

    /// The word that the log is kept as, beside its ring.
    #[inline]
    pub(super) fn head(&self) -> u64 {
        self.oldest << 48 | u64::from(self.partial) << 16 | (self.full << 8 | self.first) as u64
    }

    /// Removes what has left the window; `last` is the time of the last counted call, not after `now`.
    #[inline]
    pub(super) fn expire(&mut self, last: u64, now: u64) {
        if now - last >= self.rule.period {
            // Also keeps ages below 4,096 ticks, so that 12 bits tell them apart.
            self.partial = 0;
            self.full = 0;
        }
        if self.full > 0 {
            let tick = now >> self.rule.tick_bits;
            while self.full > 0 && age(tick, self.oldest) > self.rule.last_age {
                self.forget_oldest();
            }
        }
    }

    /// What the window says of `cost` calls.
    #[inline]
    pub(super) fn judge(&self, cost: u32, last: u64, now: u64) -> Part {
        let counted = self.counted();
        let remaining = self.rule.limit.saturating_sub(counted);
        let until_free = (last + self.rule.period).saturating_sub(now);
        Part {
            limit: self.rule.limit,
            remaining,
            reset_after: if counted == 0 { 0 } else { until_free },
            retry_after: match counted.saturating_add(cost).saturating_sub(self.rule.limit) {
                0 => 0,
                _ if cost > self.rule.limit => self.rule.period,
                too_many => self.until_left(too_many, now).min(until_free),
            },
        }
    }

    /// Counts calls. Where there is no room for them the oldest make it, since only the latest `limit` matter; of a group
    /// all or none.
    #[inline]
    pub(super) fn count(&mut self, cost: u32, now: u64) {
        let most = self.rule.limit + self.rule.group - 1;
        let cost = cost.min(self.rule.limit);
        while self.full > 0 && self.counted() + cost > most {
            self.forget_oldest();
        }
        self.partial = self.partial.min(most - cost) + cost;
        let tick = (now >> self.rule.tick_bits) & TICK_MASK;
        while self.partial >= self.rule.group && self.full < self.rule.capacity {
            self.partial -= self.rule.group;
            self.set(self.wrap(self.first + self.full), tick);
            if self.full == 0 {
                self.oldest = tick;
            }
            self.full += 1;
        }
    }

    fn forget_oldest(&mut self) {
        self.first = self.wrap(self.first + 1);
        self.full -= 1;
        self.oldest = self.get(self.first);
    }

    fn counted(&self) -> u32 {
        // At most a hundred groups, each below 2^16.
        u32::try_from(self.full).unwrap_or(u32::MAX) * self.rule.group + self.partial
    }

    /// The time until `calls` of the oldest have left the window, or more than the whole of it where that takes the
    /// partial group too.
    fn until_left(&self, calls: u32, now: u64) -> u64 {
        let groups = calls.div_ceil(self.rule.group) as usize;
        if groups > self.full {
            return u64::MAX;
        }
        let place = self.wrap(self.first + groups - 1);
        let tick = now >> self.rule.tick_bits;
        let age = age(tick, self.get(place)).min(self.rule.last_age);
        ((tick + self.rule.last_age + 1 - age) << self.rule.tick_bits).saturating_sub(now)
    }

    /// The place in the ring of a number below twice its length.
    const fn wrap(&self, number: usize) -> usize {
        if number < self.rule.capacity {
            number
        } else {
            number - self.rule.capacity
        }
    }

    fn get(&self, place: usize) -> u64 {
        self.ring[place / LANES].load(Relaxed) >> shift(place) & TICK_MASK
    }

    fn set(&self, place: usize, tick: u64) {
        let word = &self.ring[place / LANES];
        let others = word.load(Relaxed) & !(TICK_MASK << shift(place));
        word.store(others | tick << shift(place), Relaxed);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "calls are below 2^32, and what stands above them is another field"
)]
const fn low_half(word: u64) -> u32 {
    word as u32
}

const fn age(tick: u64, earlier: u64) -> u64 {
    tick.wrapping_sub(earlier) & TICK_MASK
}

const fn shift(place: usize) -> usize {
    place % LANES * 12
}

/// Ticks in a word of a ring.
const LANES: usize = 5;
const TICK_MASK: u64 = 0xFFF;
const MOST_TICKS: u64 = 2_000;
