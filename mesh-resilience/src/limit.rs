//! Rate limit: so many calls per key in any stretch of time, several stretches at once.
//!
//! For a window of `n` calls in time `w`, whatever the callers do:
//!
//! - no stretch of length `w`, wherever it begins, sees more than `n` calls admitted;
//! - a call is refused only if more than 99 % of `n` were admitted in the `w` (and a 16,000th of it) before it. Below
//!   100 a window is exact.
//!
//! A token bucket admits up to twice `n` in a stretch, counters per calendar minute do too; a log of timestamps is exact
//! and takes 40 KB a key for 10,000 an hour. This is a log of *groups*: one coarse timestamp for every hundredth part of
//! `n`, and a group counts until its last call has left the window.
//!
//! Memory: a key takes 306 bytes with the default windows, plus 16 for its name and 7 for the index: 100,000 keys fit 32 MiB,
//! and the table never grows beyond [`LimitConfig::max_keys`]. Of keys only a 64-bit hash under a random secret is kept,
//! so long names cost no more than short ones; two of 100,000 keys share a count with a chance of 3 in 10^10. When the
//! table is full, the key that was admitted least recently out of a small sample is forgotten.
//!
//! # Sources
//!
//! - Redis, "Key eviction" (sampled LRU).
//! - draft-ietf-httpapi-ratelimit-headers (what a [`Verdict`] reports).

mod service;
mod table;
mod window;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::table::Shard;
use self::window::Rule;
use crate::error::ConfigError;

pub use crate::refusal::Limited;

pub use self::service::{KeyOf, Limit, LimitLayer, ResponseFuture};

/// How many windows one limiter can have.
pub const MAX_WINDOWS: usize = 4;

/// So many calls in so much time.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Calls admitted in any stretch of `period`; at most 6,000,000.
    pub max_requests: NonZeroU32,
    /// The length of the stretch; 1 ms to 10 years.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub period: Duration,
}

impl Window {
    /// Allows `max_requests` in any stretch of `period`.
    pub const fn new(max_requests: NonZeroU32, period: Duration) -> Self {
        Self {
            max_requests,
            period,
        }
    }
}

/// The settings of one limiter.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct LimitConfig {
    /// The windows, all of which must allow a call. Default 100 a minute and 10,000 an hour; 1 to 4 of them.
    pub windows: Vec<Window>,
    /// Keys remembered. Default 100,000, at most some 32 MiB with the default windows; taken up only as keys come.
    ///
    /// More distinct active keys than this make the limiter forget some of them, and so admit more of those.
    pub max_keys: NonZeroUsize,
}

impl LimitConfig {
    /// Sets the windows.
    #[must_use]
    pub fn with_windows(mut self, windows: Vec<Window>) -> Self {
        self.windows = windows;
        self
    }

    /// Sets how many keys are remembered.
    #[must_use]
    pub const fn with_max_keys(mut self, max_keys: NonZeroUsize) -> Self {
        self.max_keys = max_keys;
        self
    }
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            windows: DEFAULT_WINDOWS.to_vec(),
            max_keys: DEFAULT_MAX_KEYS,
        }
    }
}

/// The answer of a [`Limiter`], about the window that is nearest to its limit.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether the call may pass.
    pub allowed: bool,
    /// Calls that the window allows (`X-RateLimit-Limit`).
    pub limit: u32,
    /// Calls that would pass now, after this one (`X-RateLimit-Remaining`).
    pub remaining: u32,
    /// Time until all of the window is free again if no more calls come (`X-RateLimit-Reset`).
    pub reset_after: Duration,
    /// Time until the next call can pass; zero if it can now (`Retry-After`).
    pub retry_after: Duration,
}

/// Counts calls by key. Shared by reference; one lock for each of 16 shards, held for well under a microsecond.
pub struct Limiter {
    rules: Vec<Rule>,
    /// Length of one key's record of all windows.
    stride: usize,
    epoch: OnceEpoch,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    keys: AtomicUsize,
    max_keys: usize,
}

/// The first reading of the clock, to which all later ones are relative.
type OnceEpoch = std::sync::OnceLock<Instant>;

impl Limiter {
    /// Creates a limiter that has seen no key.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`LimitConfig`] and [`Window`] for their ranges.
    pub fn new(config: &LimitConfig) -> Result<Self, ConfigError> {
        if config.windows.is_empty() || config.windows.len() > MAX_WINDOWS {
            return Err(ConfigError::Windows {
                windows: config.windows.len(),
                max: MAX_WINDOWS,
            });
        }
        let mut rules = Vec::with_capacity(config.windows.len());
        let mut stride = 0;
        for window in &config.windows {
            let rule = Rule::new(window, stride)?;
            stride += rule.words();
            rules.push(rule);
        }
        Ok(Self {
            rules,
            stride,
            epoch: OnceEpoch::new(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect(),
            keys: AtomicUsize::new(0),
            max_keys: config.max_keys.get(),
        })
    }

    /// Admits a call of `key` if every window allows it, and counts it if so. A refused call is not counted.
    pub fn check<K: Hash + ?Sized>(&self, key: &K, now: Instant) -> Verdict {
        let epoch = *self.epoch.get_or_init(|| now);
        let now = u64::try_from(now.saturating_duration_since(epoch).as_micros())
            .unwrap_or(u64::MAX >> 1);
        let hash = self.hasher.hash_one(key);
        // The index inside the shard uses the low bits and the topmost seven.
        let shard = ((hash >> 32) % SHARDS) as usize;
        let mut shard = self.shards[shard].lock();
        let place = shard
            .find(hash)
            .unwrap_or_else(|| self.insert(&mut shard, hash));
        let (last, record) = shard.entry(place, self.stride);
        window::check(&self.rules, record, last, now)
    }

    /// Returns how many keys are remembered.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Returns roughly how many bytes the records of all keys take.
    pub fn memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().memory()).sum()
    }

    /// Makes room for a new key: a fresh place while there are fewer than `max_keys`, else that of an old key.
    fn insert(&self, shard: &mut Shard, hash: u64) -> usize {
        let grows = self
            .keys
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |keys| {
                (keys < self.max_keys).then_some(keys + 1)
            });
        if grows.is_ok() || shard.is_empty() {
            shard.push(hash, self.stride)
        } else {
            shard.replace_oldest(hash, self.stride)
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("rules", &self.rules)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

const SHARDS: u64 = 16;
const DEFAULT_WINDOWS: [Window; 2] = [
    Window::new(NonZeroU32::new(100).unwrap(), Duration::from_mins(1)),
    Window::new(NonZeroU32::new(10_000).unwrap(), Duration::from_hours(1)),
];
/// The bound that the threat model asks for at the least.
const DEFAULT_MAX_KEYS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Limiter>();
};
