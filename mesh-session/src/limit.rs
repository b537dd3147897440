//! How many handshakes a peer may ask for, and how many may be under way.
//!
//! Each peer has a token bucket, kept as one instant: the time at which it will be full again. Whatever a peer does, in
//! any stretch of time `t` it is admitted to at most `burst + per_second * t` handshakes, and fewer if they fail: whoever
//! fails once the private key has worked pays `failure_cost` tokens, so a certificate alone buys little RSA. A failure is
//! known only afterwards, so a bucket can go below empty, by the failures of what was under way.
//!
//! Peers are forgotten when their bucket is full again, which changes nothing for them. When the table is full of peers
//! that are not, those who come anew share one bucket, as one peer: the ones in the table keep what is theirs, and a
//! newcomer may still get in.
//!
//! # Sources
//!
//! The virtual scheduling algorithm of ITU-T I.371 annex A, known as GCRA.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

/// Bounds of a [`HandshakeLimiter`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LimiterConfig {
    /// Handshakes that a peer may ask for at once. All instances of a service are one peer, and come at once when this
    /// node has restarted. Default 32.
    pub burst: NonZeroU32,
    /// Handshakes a second that a peer may ask for in the long run; above 125,000,000 it is that. Default 8: at 3.5 ms
    /// each (RSA-4096) one peer gets 3 % of a core, and a hundred instances are served within 9 s of a restart.
    pub per_second: NonZeroU32,
    /// Tokens that a handshake costs in all if it fails after private-key work. Default 4: a peer without a valid token
    /// gets two private operations a second.
    pub failure_cost: NonZeroU32,
    /// Handshakes of one peer that may be under way at once, waiting ones too. Default 8.
    pub max_per_peer: NonZeroU32,
    /// Handshakes that may be under way at once, waiting ones too. Default 256: done one at a time the last of them waits
    /// 0.9 s.
    pub max_under_way: NonZeroU32,
    /// Peers that have a bucket of their own; each costs about 100 bytes and its name. Default 10,000.
    pub max_peers: NonZeroU32,
}

impl Default for LimiterConfig {
    fn default() -> Self {
        Self {
            burst: BURST,
            per_second: PER_SECOND,
            failure_cost: FAILURE_COST,
            max_per_peer: MAX_PER_PEER,
            max_under_way: MAX_UNDER_WAY,
            max_peers: MAX_PEERS,
        }
    }
}

impl LimiterConfig {
    /// Sets how many handshakes a peer may ask for at once, and how many a second after that.
    #[must_use]
    pub fn with_rate(self, burst: NonZeroU32, per_second: NonZeroU32) -> Self {
        Self {
            burst,
            per_second,
            ..self
        }
    }

    /// Sets what a handshake costs in all if it fails after private-key work.
    #[must_use]
    pub fn with_failure_cost(self, failure_cost: NonZeroU32) -> Self {
        Self {
            failure_cost,
            ..self
        }
    }

    /// Sets how many handshakes may be under way at once: of one peer, and of all.
    #[must_use]
    pub fn with_under_way(self, max_per_peer: NonZeroU32, max_under_way: NonZeroU32) -> Self {
        Self {
            max_per_peer,
            max_under_way,
            ..self
        }
    }

    /// Sets how many peers have a bucket of their own.
    #[must_use]
    pub fn with_max_peers(self, max_peers: NonZeroU32) -> Self {
        Self { max_peers, ..self }
    }
}

/// Why a handshake is not begun now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Limited {
    /// The peer's tokens are spent.
    #[error(
        "the peer asks for more handshakes than it may, the next one passes in {retry_after:?}"
    )]
    Rate {
        /// When the next one passes, if no other comes first.
        retry_after: Duration,
    },
    /// The peer has as many under way as it may.
    #[error("the peer has as many handshakes under way as it may")]
    PeerBusy,
    /// There are as many under way as may be.
    #[error("as many handshakes are under way as may be")]
    Busy,
}

impl Limited {
    /// When it is worth another try.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Rate { retry_after } => *retry_after,
            Self::PeerBusy | Self::Busy => BUSY_FOR,
        }
    }
}

/// What a [`HandshakeLimiter`] did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LimiterStats {
    /// Peers with a bucket of their own now.
    pub peers: usize,
    /// Handshakes under way now.
    pub under_way: u32,
    /// Handshakes that got a place.
    pub begun: u64,
    /// Handshakes that failed after private-key work.
    pub failed: u64,
    /// Messages refused because their peer's tokens were spent.
    pub refused_rate: u64,
    /// Messages refused because too many handshakes were under way, of their peer or in all.
    pub refused_busy: u64,
}

/// Limits handshakes for each peer, named by a `K` that it cannot choose freely, and in all. Clones share one state.
///
/// ```
/// use std::time::Instant;
/// use mesh_session::{HandshakeLimiter, Limited, LimiterConfig};
/// # fn handshake(now: Instant) -> Result<(), Limited> {
/// let limiter = HandshakeLimiter::new(LimiterConfig::default(), now);
/// limiter.admit(&"users", now)?;
/// // Here the message is read and checked. If it asks for no private-key work, `limiter.give_back(&"users")`. Else:
/// let place = limiter.begin(&"users")?;
/// // The private-key work. If it fails, `place.fail(now)`.
/// drop(place);
/// # Ok(())
/// # }
/// ```
pub struct HandshakeLimiter<K: Clone + Eq + Hash>(Arc<Shared<K>>);

impl<K: Clone + Eq + Hash> HandshakeLimiter<K> {
    /// A limiter that has seen nobody.
    pub fn new(config: LimiterConfig, now: Instant) -> Self {
        let token = u64::from(NANOS_PER_SECOND.div_ceil(config.per_second.get())).max(CHEAP_SHARE);
        let tokens = |number: NonZeroU32| token.saturating_mul(u64::from(number.get()));
        Self(Arc::new(Shared {
            token,
            given_back: token.saturating_sub(token / CHEAP_SHARE),
            depth: tokens(config.burst),
            surcharge: tokens(config.failure_cost).saturating_sub(token),
            max_peers: usize::try_from(config.max_peers.get()).unwrap_or(usize::MAX),
            config,
            start: now,
            state: Mutex::new(State {
                peers: HashMap::new(),
                crowd: Peer::default(),
                swept: None,
                stats: LimiterStats::default(),
            }),
        }))
    }

    /// Takes a token of `peer` for a message that may ask for private-key work. It costs less than reading the message, so
    /// call it before.
    ///
    /// # Errors
    ///
    /// [`Limited::Rate`] if there is no whole token; nothing is taken then.
    pub fn admit(&self, peer: &K, now: Instant) -> Result<(), Limited> {
        let shared = &*self.0;
        let now = shared.nanos(now);
        let state = &mut *shared.state.lock();
        let (bucket, counted) = state.bucket(peer, now, shared.max_peers);
        bucket
            .spend(shared.token, now, shared.depth)
            .inspect_err(|_| {
                counted.refused_rate = counted.refused_rate.saturating_add(1);
            })
    }

    /// Gives back seven eighths of the token where an honest peer's message asks for no private-key work: it wants the
    /// offer, or was made for one that is no longer valid.
    pub fn give_back(&self, peer: &K) {
        let state = &mut *self.0.state.lock();
        let bucket = state.peers.get_mut(peer).unwrap_or(&mut state.crowd);
        bucket.full_at = bucket.full_at.saturating_sub(self.0.given_back);
    }

    /// Takes a place for an admitted handshake of `peer`; dropping it gives it back.
    ///
    /// # Errors
    ///
    /// [`Limited::PeerBusy`] and [`Limited::Busy`] if there is none.
    pub fn begin(&self, peer: &K) -> Result<Place<K>, Limited> {
        let shared = &self.0;
        let state = &mut *shared.state.lock();
        let (bucket, peer) = match state.peers.get_mut(peer) {
            Some(own) => (own, Some(peer.clone())),
            None => (&mut state.crowd, None),
        };
        let refused = if bucket.under_way >= shared.config.max_per_peer.get() {
            Limited::PeerBusy
        } else if state.stats.under_way >= shared.config.max_under_way.get() {
            Limited::Busy
        } else {
            bucket.under_way = bucket.under_way.saturating_add(1);
            state.stats.under_way = state.stats.under_way.saturating_add(1);
            state.stats.begun = state.stats.begun.saturating_add(1);
            let limiter = Arc::clone(shared);
            return Ok(Place { limiter, peer });
        };
        state.stats.refused_busy = state.stats.refused_busy.saturating_add(1);
        Err(refused)
    }

    /// What it did so far.
    pub fn stats(&self) -> LimiterStats {
        let state = self.0.state.lock();
        LimiterStats {
            peers: state.peers.len(),
            ..state.stats
        }
    }
}

impl<K: Clone + Eq + Hash> Clone for HandshakeLimiter<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for HandshakeLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeLimiter")
            .field("config", &self.0.config)
            .field("stats", &self.stats())
            .finish()
    }
}

/// A handshake under way, from before its private-key work to its end. Keep it with the work, not with whoever waits for
/// it: a peer that gives up must not make room before the key is done.
#[must_use = "dropping it gives the place back"]
pub struct Place<K: Clone + Eq + Hash> {
    limiter: Arc<Shared<K>>,
    /// `None` is the crowd.
    peer: Option<K>,
}

impl<K: Clone + Eq + Hash> Place<K> {
    /// Ends a handshake that failed after private-key work, by the peer's fault: it pays the rest of the price.
    pub fn fail(self, now: Instant) {
        let now = self.limiter.nanos(now);
        let state = &mut *self.limiter.state.lock();
        let bucket = state.under_way(self.peer.as_ref());
        bucket.full_at = bucket
            .full_at
            .max(now)
            .saturating_add(self.limiter.surcharge);
        state.stats.failed = state.stats.failed.saturating_add(1);
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let state = &mut *self.limiter.state.lock();
        let bucket = state.under_way(self.peer.as_ref());
        bucket.under_way = bucket.under_way.saturating_sub(1);
        state.stats.under_way = state.stats.under_way.saturating_sub(1);
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for Place<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// All times are nanoseconds since `start`.
struct Shared<K> {
    config: LimiterConfig,
    token: u64,
    given_back: u64,
    depth: u64,
    surcharge: u64,
    max_peers: usize,
    start: Instant,
    state: Mutex<State<K>>,
}

impl<K> Shared<K> {
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

struct State<K> {
    peers: HashMap<K, Peer>,
    crowd: Peer,
    /// When the table was last searched for peers to forget.
    swept: Option<u64>,
    stats: LimiterStats,
}

impl<K: Clone + Eq + Hash> State<K> {
    fn bucket(&mut self, peer: &K, now: u64, max_peers: usize) -> (&mut Peer, &mut LimiterStats) {
        if !self.peers.contains_key(peer) {
            self.make_room(now, max_peers);
            if self.peers.len() >= max_peers {
                return (&mut self.crowd, &mut self.stats);
            }
        }
        let own = self.peers.entry(peer.clone()).or_default();
        (own, &mut self.stats)
    }

    /// Searching a full table takes as long as some hundred admissions, so it is done once in a while.
    fn make_room(&mut self, now: u64, max_peers: usize) {
        let is_due = self
            .swept
            .is_none_or(|swept| now.saturating_sub(swept) >= SWEEP_EVERY);
        if self.peers.len() >= max_peers && is_due {
            self.swept = Some(now);
            self.peers
                .retain(|_, peer| peer.under_way > 0 || peer.full_at > now);
        }
    }

    /// The bucket of a handshake under way; it is not forgotten before that ends.
    fn under_way(&mut self, peer: Option<&K>) -> &mut Peer {
        peer.and_then(|peer| self.peers.get_mut(peer))
            .unwrap_or(&mut self.crowd)
    }
}

#[derive(Default)]
struct Peer {
    full_at: u64,
    under_way: u32,
}

impl Peer {
    fn spend(&mut self, price: u64, now: u64, depth: u64) -> Result<(), Limited> {
        let wait = match self.full_at.max(now).checked_add(price) {
            Some(full_at) if full_at.saturating_sub(now) <= depth => {
                self.full_at = full_at;
                return Ok(());
            }
            Some(full_at) => full_at.saturating_sub(now).saturating_sub(depth),
            None => u64::MAX,
        };
        Err(Limited::Rate {
            retry_after: Duration::from_nanos(wait),
        })
    }
}

const BURST: NonZeroU32 = NonZeroU32::new(32).unwrap();
const PER_SECOND: NonZeroU32 = NonZeroU32::new(8).unwrap();
const FAILURE_COST: NonZeroU32 = NonZeroU32::new(4).unwrap();
const MAX_PER_PEER: NonZeroU32 = NonZeroU32::new(8).unwrap();
const MAX_UNDER_WAY: NonZeroU32 = NonZeroU32::new(256).unwrap();
const MAX_PEERS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const NANOS_PER_SECOND: u32 = 1_000_000_000;
/// Fetching an offer costs a hundredth of a handshake; an eighth also bounds how often.
const CHEAP_SHARE: u64 = 8;
/// As long as a full house of handshakes takes.
const BUSY_FOR: Duration = Duration::from_secs(1);
const SWEEP_EVERY: u64 = 1_000_000_000;

#[cfg(test)]
mod tests;
