//! When to fetch an issuer's keys, and for how long to trust those that are there.
//!
//! Without I/O: the caller fetches when [`Jwks::next`] says so, and tells what came. At most one fetch is under way, and
//! two never begin within the least interval, however many unknown keys tokens name and however often fetches fail. A
//! set that is refused, or none, leaves the last good one in force until it is too old; then no token of the issuer is
//! accepted.
//!
//! A key that was gone for longer than two refreshes does not come back: an old set that is played to us again, by a
//! cache or by somebody else, is refused whole. (Within that time it may, since the servers of one issuer can disagree
//! while they rotate.)

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::jwk::{KeySet, KeySetError};
use super::remember::Fingerprint;

/// How an issuer's keys are kept fresh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct JwksConfig {
    /// How often the keys are fetched, less up to a tenth so that nodes don't ask in step. Default 5 min.
    pub refresh: Duration,
    /// Two fetches begin at least this far apart. Default 10 s.
    pub min_interval: Duration,
    /// For how long the last good keys count when no new ones come. Default 24 h.
    pub max_stale: Duration,
}

impl Default for JwksConfig {
    fn default() -> Self {
        Self {
            refresh: REFRESH,
            min_interval: MIN_INTERVAL,
            max_stale: MAX_STALE,
        }
    }
}

impl JwksConfig {
    /// Sets how often the keys are fetched.
    #[must_use]
    pub fn with_refresh(mut self, refresh: Duration) -> Self {
        self.refresh = refresh;
        self
    }

    /// Sets how far apart two fetches begin.
    #[must_use]
    pub fn with_min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval;
        self
    }

    /// Sets for how long the last good keys count.
    #[must_use]
    pub fn with_max_stale(mut self, age: Duration) -> Self {
        self.max_stale = age;
        self
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a caller must handle each")]
pub enum Next {
    /// Fetch now, and call [`Jwks::fetched`] or [`Jwks::failed`] when that is over.
    Fetch,
    /// Ask again at this time, or when something happened.
    Wait(Instant),
    /// A fetch is under way.
    Fetching,
}

/// The keys of one issuer over time.
#[derive(Debug)]
pub struct Jwks {
    config: JwksConfig,
    good: Option<Good>,
    due: Instant,
    last_begun: Option<Instant>,
    is_fetching: bool,
    failures: u32,
    random: u64,
    gone: Vec<Gone>,
}

#[derive(Debug)]
struct Good {
    keys: Arc<KeySet>,
    at: Instant,
}

/// A key that the issuer had.
#[derive(Debug)]
struct Gone {
    key: Fingerprint,
    since: Instant,
}

impl Jwks {
    /// Keys that are fetched for the first time at `now`; `seed` spreads the fetches of several nodes.
    pub fn new(config: JwksConfig, now: Instant, seed: u64) -> Self {
        Self {
            config,
            good: None,
            due: now,
            last_begun: None,
            is_fetching: false,
            failures: 0,
            random: seed,
            gone: Vec::new(),
        }
    }

    /// What is to be done; [`Next::Fetch`] counts as begun.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.is_fetching {
            return Next::Fetching;
        }
        let at = self.earliest().map_or(self.due, |at| at.max(self.due));
        if now < at {
            return Next::Wait(at);
        }
        self.is_fetching = true;
        self.last_begun = Some(now);
        Next::Fetch
    }

    /// A token named a key that the set does not have: fetches as soon as the least interval allows. Gives whether that
    /// is now, or a fetch is under way, so that waiting for it makes sense.
    pub fn unknown_key(&mut self, now: Instant) -> bool {
        if self.is_fetching {
            return true;
        }
        let at = self.earliest().unwrap_or(now).max(now);
        // While fetches fail, their back-off holds.
        if self.failures == 0 {
            self.due = self.due.min(at);
        }
        self.due <= now
    }

    /// A fetch brought this; gives the keys that count from now on.
    ///
    /// # Errors
    /// [`JwksError`] when the set is refused; the last good one stays. This is an alarm, not a hiccup: the issuer is
    /// faulty, or somebody speaks for it.
    pub fn fetched(&mut self, now: Instant, body: &[u8]) -> Result<Arc<KeySet>, JwksError> {
        let accepted = KeySet::parse(body)
            .map_err(JwksError::Set)
            .and_then(|set| self.check_return(now, set));
        match accepted {
            Ok(set) => {
                let keys = self.replace(now, set);
                self.is_fetching = false;
                self.failures = 0;
                let spread = self.config.refresh / 10;
                let wait = self.config.refresh.saturating_sub(self.up_to(spread));
                self.due = now + wait;
                Ok(keys)
            }
            Err(error) => {
                self.failed(now);
                Err(error)
            }
        }
    }

    /// A fetch brought nothing; the next try comes later and later, at most a refresh away.
    pub fn failed(&mut self, now: Instant) {
        self.is_fetching = false;
        self.failures = self.failures.saturating_add(1);
        let doubled = 1_u32.checked_shl(self.failures.min(MAX_DOUBLINGS) - 1);
        let delay = self
            .config
            .min_interval
            .saturating_mul(doubled.unwrap_or(1));
        let delay = delay.min(self.config.refresh);
        self.due = now + delay + self.up_to(delay / 2);
    }

    /// The keys that count at `now`, unless they are too old.
    pub fn keys(&self, now: Instant) -> Option<&Arc<KeySet>> {
        let good = self.good.as_ref()?;
        (now < good.at + self.config.max_stale).then_some(&good.keys)
    }

    /// When the last good keys are too old, if there are any.
    pub fn stale_at(&self) -> Option<Instant> {
        Some(self.good.as_ref()?.at + self.config.max_stale)
    }

    /// How long ago the last good keys came.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let good = self.good.as_ref()?;
        Some(now.saturating_duration_since(good.at))
    }

    /// Fetches that failed or were refused since the last good one.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn earliest(&self) -> Option<Instant> {
        Some(self.last_begun? + self.config.min_interval)
    }

    fn check_return(&self, now: Instant, set: KeySet) -> Result<KeySet, JwksError> {
        let for_good = self.config.refresh.saturating_mul(2);
        let is_over = |gone: &Gone| now.saturating_duration_since(gone.since) > for_good;
        let is_back = set.digests().any(|key| {
            self.gone
                .iter()
                .any(|gone| gone.key == *key && is_over(gone))
        });
        if is_back {
            return Err(JwksError::Rollback);
        }
        Ok(set)
    }

    fn replace(&mut self, now: Instant, set: KeySet) -> Arc<KeySet> {
        self.gone
            .retain(|gone| !set.digests().any(|key| gone.key == *key));
        if let Some(old) = &self.good {
            let left = old
                .keys
                .digests()
                .filter(|key| !set.digests().any(|new| new == *key));
            self.gone.extend(left.map(|key| Gone {
                key: *key,
                since: now,
            }));
            let surplus = self.gone.len().saturating_sub(MAX_GONE);
            self.gone.drain(..surplus);
        }
        let keys = match self.good.take() {
            Some(old) if old.keys.is_same(&set) => old.keys,
            _ => Arc::new(set),
        };
        self.good = Some(Good {
            keys: Arc::clone(&keys),
            at: now,
        });
        keys
    }

    /// A random time below `most` (`SplitMix64`).
    fn up_to(&mut self, most: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(mixed.checked_rem(nanos).unwrap_or(0))
    }
}

/// Why a fetched set was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JwksError {
    /// The set itself is wrong.
    #[error("the fetched key set is refused; the last good one stays")]
    Set(#[source] KeySetError),
    /// The set holds a key again that the issuer had dropped long ago.
    #[error(
        "the fetched key set holds a key that was dropped before, so it is an old one; the last good one stays"
    )]
    Rollback,
}

/// Half of what providers usually cache for.
const REFRESH: Duration = Duration::from_mins(5);
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// An outage of a night must not stop a service; a key that was withdrawn meanwhile counts for no longer.
const MAX_STALE: Duration = Duration::from_hours(24);
/// Ten years of daily rotations would be more; the oldest are forgotten.
const MAX_GONE: usize = 256;
const MAX_DOUBLINGS: u32 = 16;

#[cfg(test)]
mod tests;
