//! Rate limit: so many calls per key in any stretch of time, several stretches at once, and a token bucket.
//!
//! ```text
//!   WINDOW  100 calls in 60 s            ◀───────────── 60 s ─────────────▶
//!   admitted calls on the line of time ──┼─••──•••─────•─••••───••──•──────●──▶ now
//!                                        └ what stands left of here counts no more
//!
//!   BUCKET  burst 20, 5 a second         ████████████████░░░░  a call takes one place,
//!                                        ◀──── burst ───────▶  and each 200 ms give one back
//! ```
//!
//! *Terms*: a **key** is whose calls are counted together. A **window** is a number of calls and a stretch of time. A
//! **bucket** holds `burst` calls and is refilled at a `rate`. A call is **admitted**, and then counted by all of them, or
//! **refused** by at least one, and then counted by none. The **cost** of a call is how many it counts for, usually 1.
//!
//! For a window of `n` calls in time `w`, whatever the callers do and however many threads ask:
//!
//! - no stretch of length `w`, wherever it begins, sees more than `n` calls admitted;
//! - a call is refused only if more than 99 % of `n` were admitted in the `w` (and a 500th of it) before it. Below
//!   100 a window is exact.
//!
//! For a bucket: in any stretch of time `t` at most `burst + rate * t` calls are admitted, and one is refused only if it
//! would be one too many, to the nanosecond.
//!
//! A token bucket alone admits up to twice `n` in a stretch, counters per calendar minute do too; a log of timestamps is
//! exact and takes 80 KB a key for 10,000 an hour. A window here is a log of *groups*: one coarse timestamp for every
//! hundredth part of `n`, and a group counts until its last call has left the window.
//!
//! *Memory*: a key takes 280 bytes with the default windows, and 5 to 10 for the index: 100,000 keys fit 32 MiB, and the table
//! never grows beyond [`LimitConfig::max_keys`]. Of keys only a 64-bit hash under a random secret is kept, so long names
//! cost no more than short ones; two of 100,000 keys share a count with a chance of 3 in 10^10.
//!
//! *Eviction*: no key is forgotten while there are fewer than `max_keys`. In a full table each new key takes the place of
//! the least recently admitted of eight, and each place is looked at once in `max_keys / 8` new keys: a key that was
//! admitted more recently than seven others beside it stays. Who can make up keys can so make the limiter forget: let a key
//! be a verified identity, or an address that can be trusted.
//!
//! *Threads*: a key that is found is checked under a lock of its own, one bit in its record, and a key that must wait is
//! refused without one. [`Limiter::check`] never blocks for longer than another check takes; new keys may wait while room
//! for up to 4,096 more of them is made, which takes less than a millisecond.
//!
//! # Limits that nodes share
//!
//! With the feature `shared`, `limit::shared` asks a store that several nodes count in, and falls back to a share of the
//! limit while the store is away.
//!
//! [`rls`] asks the rate limit service that Envoy has asked, and is one.
//!
//! # Sources
//!
//! - ITU-T I.371 (03/2004), annex A: the generic cell rate algorithm, here as virtual scheduling.
//! - Redis, "Key eviction" (sampled LRU).
//! - draft-ietf-httpapi-ratelimit-headers (what a [`Verdict`] reports; the headers carry the older names with `X-`).

mod bucket;
mod config;
mod record;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "rls")]
pub mod rls;
mod service;
#[cfg(feature = "shared")]
pub mod shared;
mod table;
mod verdict;
mod window;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::bucket::Gcra;
use self::record::{Locked, Record};
use self::table::Table;
use self::verdict::Part;
use self::window::{Log, Rule};
use crate::error::ConfigError;

pub use crate::refusal::Limited;

pub use self::config::{Bucket, LimitConfig, MAX_WINDOWS, Window};
pub use self::service::{KeyOf, Limit, LimitLayer, ResponseFuture};
pub use self::verdict::Verdict;

/// Counts calls by key. Shared by reference.
pub struct Limiter {
    rules: Vec<Rule>,
    bucket: Option<Gcra>,
    /// The first reading of the clock, to which all later ones are relative.
    epoch: OnceLock<Instant>,
    hasher: RandomState,
    table: Table,
}

impl Limiter {
    /// Creates a limiter that has seen no key.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`LimitConfig`], [`Window`] and [`Bucket`] for their
    /// ranges.
    pub fn new(config: &LimitConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rules = Vec::with_capacity(config.windows.len());
        let mut stride = 0;
        for window in &config.windows {
            let rule = Rule::new(window, stride)?;
            stride += rule.words();
            rules.push(rule);
        }
        let parts = rules.len() + usize::from(config.bucket.is_some());
        Ok(Self {
            rules,
            bucket: config.bucket.as_ref().map(Gcra::new).transpose()?,
            epoch: OnceLock::new(),
            hasher: RandomState::new(),
            table: Table::new(config.max_keys.get(), parts, stride),
        })
    }

    /// Admits a call of `key` if every window and the bucket allow it, and counts it if so. A refused call is not counted.
    pub fn check<K: Hash + ?Sized>(&self, key: &K, now: Instant) -> Verdict {
        self.decide(self.hash(key), 1, self.nanos(now))
    }

    /// As [`Limiter::check`], for a call that counts for `cost`: all of it, or none.
    pub fn check_n<K: Hash + ?Sized>(&self, key: &K, cost: NonZeroU32, now: Instant) -> Verdict {
        self.decide(self.hash(key), cost.get(), self.nanos(now))
    }

    /// Says what a call of `key` would be told, and counts nothing. [`Verdict::remaining`] is what is left without it.
    pub fn peek<K: Hash + ?Sized>(&self, key: &K, now: Instant) -> Verdict {
        let (hash, now) = (self.hash(key), self.nanos(now));
        match self.table.lock(hash, self.table.find(hash), None) {
            Some(locked) => {
                let now = now.max(locked.last());
                self.judge(&locked, 1, now).1.verdict()
            }
            None => self.untouched(),
        }
    }

    /// Counts a call that something else admitted, whether this limiter would have or not.
    pub fn note<K: Hash + ?Sized>(&self, key: &K, cost: NonZeroU32, now: Instant) {
        let (hash, now) = (self.hash(key), self.nanos(now));
        if let Some(mut locked) = self.table.lock(hash, self.table.find(hash), Some(now)) {
            let now = now.max(locked.last());
            self.judge(&locked, cost.get(), now);
            self.count(&mut locked, cost.get(), now);
        }
    }

    /// Returns how many keys are remembered.
    pub fn keys(&self) -> usize {
        self.table.keys()
    }

    /// Returns how many keys were forgotten to make room for others.
    pub fn forgotten(&self) -> u64 {
        self.table.forgotten()
    }

    /// Returns roughly how many bytes the records of all keys take.
    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    fn decide(&self, hash: u64, cost: u32, now: u64) -> Verdict {
        let found = self.table.find(hash);
        // A flood of calls that can't pass writes nothing that another thread reads.
        if let Some(record) = found.filter(|_| cost == 1)
            && let Some(verdict) = self.blocked(record, hash, now)
        {
            return verdict;
        }
        let Some(mut locked) = self.table.lock(hash, found, Some(now)) else {
            return self.untouched();
        };
        // Readings of several threads may arrive out of order; the time of a key never goes back.
        let now = now.max(locked.last());
        let (which, mut part) = self.judge(&locked, cost, now);
        if part.retry_after == 0 {
            self.count(&mut locked, cost, now);
            part.remaining -= cost;
            part.reset_after = self.free_at(which, locked.record, now) - now;
        } else if cost == 1 {
            locked.block(now + part.retry_after, which);
        }
        part.verdict()
    }

    /// The tightest of all windows and the bucket before a call, and which it is. There is at least one.
    #[inline]
    fn judge(&self, locked: &Locked<'_>, cost: u32, now: u64) -> (usize, Part) {
        let (record, last) = (locked.record, locked.last());
        let mut tightest = (0, Part::REFUSES);
        let mut keep = |part: usize, told: Part| {
            if part == 0 || told.is_tighter_than(&tightest.1) {
                tightest = (part, told);
            }
        };
        for (part, rule) in self.rules.iter().enumerate() {
            let head = record.part(part);
            let mut log = Log::new(rule, head.load(Ordering::Relaxed), record.rings());
            log.expire(last, now);
            head.store(log.head(), Ordering::Relaxed);
            keep(part, log.judge(cost, last, now));
        }
        if let Some(bucket) = &self.bucket {
            let full_at = self.full_at(record).load(Ordering::Relaxed);
            keep(self.rules.len(), bucket.judge(cost, full_at, now));
        }
        tightest
    }

    /// Counts a call in a record that has been judged at this time.
    #[inline]
    fn count(&self, locked: &mut Locked<'_>, cost: u32, now: u64) {
        let record = locked.record;
        for (part, rule) in self.rules.iter().enumerate() {
            let head = record.part(part);
            let mut log = Log::new(rule, head.load(Ordering::Relaxed), record.rings());
            log.count(cost, now);
            head.store(log.head(), Ordering::Relaxed);
        }
        if let Some(bucket) = &self.bucket {
            let word = self.full_at(record);
            let full_at = bucket.count(cost, word.load(Ordering::Relaxed), now);
            word.store(full_at, Ordering::Relaxed);
        }
        locked.counted(now);
    }

    /// The bucket's word, where there is a bucket.
    fn full_at<'a>(&self, record: Record<'a>) -> &'a AtomicU64 {
        record.part(self.rules.len())
    }

    /// The refusal of a key that is known to have to wait.
    fn blocked(&self, record: Record<'_>, hash: u64, now: u64) -> Option<Verdict> {
        let (until, which) = record.blocked()?;
        let last = record.last();
        if now >= until || record.hash() != hash {
            return None;
        }
        let free_at = self.free_at(which, record, last);
        let limit = match self.rules.get(which) {
            Some(rule) => rule.limit(),
            None => self.bucket.as_ref().map_or(0, Gcra::burst),
        };
        let part = Part {
            limit,
            remaining: 0,
            reset_after: free_at.max(until) - now,
            retry_after: until - now,
        };
        Some(part.verdict())
    }

    /// When a window or the bucket is all free again, if the last call was at `last`.
    fn free_at(&self, which: usize, record: Record<'_>, last: u64) -> u64 {
        self.rules.get(which).map_or_else(
            || self.full_at(record).load(Ordering::Relaxed),
            |rule| last + rule.period(),
        )
    }

    /// What a key that has made no call is told.
    fn untouched(&self) -> Verdict {
        let windows = self.rules.iter().map(Rule::limit);
        let limits = windows.chain(self.bucket.iter().map(Gcra::burst));
        let limit = limits.min().unwrap_or(0);
        let part = Part {
            limit,
            remaining: limit,
            reset_after: 0,
            retry_after: 0,
        };
        part.verdict()
    }

    /// Zero is no key's.
    fn hash<K: Hash + ?Sized>(&self, key: &K) -> u64 {
        self.hasher.hash_one(key).max(1)
    }

    fn nanos(&self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_init(|| now);
        let nanos = now.saturating_duration_since(epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX).min(MAX_NANOS)
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("rules", &self.rules)
            .field("bucket", &self.bucket)
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}

/// Fifty years: leaves room for the longest period, and for the bits beside a time.
const MAX_NANOS: u64 = 50 * 365 * 86_400 * 1_000_000_000;

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Limiter>();
};
