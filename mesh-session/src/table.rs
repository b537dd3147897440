//! The sessions of a node by id, bounded in number, idle time, age and size.
//!
//! A session that nobody used for a while is kept without its expanded keys, in well under 1 KiB, and gets them back
//! when it is looked up.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use mesh_crypto::Fingerprint;
use parking_lot::RwLock;

use crate::Counters;
use crate::Error;
use crate::Session;
use crate::SessionId;
use crate::UnixTime;
use crate::session::Frozen;

/// Bounds of a [`SessionTable`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TableConfig {
    /// The most sessions held; at the bound, a new one replaces another, found among 32: of the peer that has the most of
    /// these, by its name, the one used longest ago. So a peer with many drives out its own. Default 100,000, at least 16.
    pub capacity: usize,
    /// How long a session lives without being looked up. Default 15 min, more than 0.
    pub idle_timeout: Duration,
    /// How long a session lives at most. Default 1 h, more than 0.
    pub max_age: Duration,
    /// How long a session keeps its expanded keys (about 3 KiB) without being looked up. Default 10 s.
    pub freeze_after: Duration,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            capacity: 100_000,
            idle_timeout: Duration::from_mins(15),
            max_age: Duration::from_hours(1),
            freeze_after: Duration::from_secs(10),
        }
    }
}

impl TableConfig {
    /// Sets the most sessions held.
    #[must_use]
    pub fn with_capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// Sets how long a session lives without being looked up.
    #[must_use]
    pub fn with_idle_timeout(self, idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            ..self
        }
    }

    /// Sets how long a session lives at most.
    #[must_use]
    pub fn with_max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Sets how long a session keeps its expanded keys without being looked up.
    #[must_use]
    pub fn with_freeze_after(self, freeze_after: Duration) -> Self {
        Self {
            freeze_after,
            ..self
        }
    }
}

/// Sessions by id. A lookup takes one shared lock on a sixteenth of the table and allocates nothing.
#[derive(Debug)]
pub struct SessionTable {
    shards: [RwLock<HashMap<SessionId, Entry>>; SHARDS],
    shard_capacity: usize,
    idle_timeout: Duration,
    max_age: Duration,
    freeze_after: Duration,
    start: Instant,
    inserted: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    held: Held,
    inserted: Duration,
    /// Milliseconds since the table was made.
    used: AtomicU64,
}

#[derive(Debug)]
enum Held {
    Ready(Arc<Session>),
    Frozen(Box<Frozen>),
    /// Only while one becomes the other.
    Nothing,
}

impl Held {
    fn peer(&self) -> Option<&str> {
        match self {
            Self::Ready(session) => Some(session.peer_name()),
            Self::Frozen(frozen) => Some(&frozen.peer().name),
            Self::Nothing => None,
        }
    }

    /// Gives up the expanded keys, if nobody else holds the session.
    fn freeze(&mut self, now: Instant) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Ready(session) => match Frozen::of(session, now) {
                Ok(frozen) => Self::Frozen(Box::new(frozen)),
                Err(session) => Self::Ready(session),
            },
            other => other,
        };
    }

    fn ready(&self) -> Option<Arc<Session>> {
        match self {
            Self::Ready(session) => Some(Arc::clone(session)),
            Self::Frozen(_) | Self::Nothing => None,
        }
    }

    /// The session, its keys expanded again; `None` if the engine fails.
    fn thaw(&mut self) -> Option<Arc<Session>> {
        if let Self::Frozen(frozen) = std::mem::replace(self, Self::Nothing) {
            *self = Self::Ready(Arc::new(frozen.thaw().ok()?));
        }
        self.ready()
    }

    fn summary(&self) -> Option<SessionSummary> {
        match self {
            Self::Ready(session) => Some(SessionSummary {
                id: session.id(),
                peer_name: Arc::clone(&session.peer().name),
                created: session.created(),
                epoch: session.epoch(),
                counters: session.counters(),
                is_frozen: false,
            }),
            Self::Frozen(frozen) => Some(frozen.summary()),
            Self::Nothing => None,
        }
    }
}

/// A session as it is shown to people.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SessionSummary {
    /// Which it is.
    pub id: SessionId,
    /// Who is at the other end.
    pub peer_name: Arc<str>,
    /// When the handshake or resumption ended here.
    pub created: UnixTime,
    /// In which epoch it is.
    pub epoch: u8,
    /// What it carried.
    pub counters: Counters,
    /// Whether it is kept without its expanded keys at the moment.
    pub is_frozen: bool,
}

impl SessionTable {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a bound is out of its range.
    pub fn new(config: TableConfig, now: Instant) -> Result<Self, Error> {
        if config.capacity < SHARDS || config.idle_timeout.is_zero() || config.max_age.is_zero() {
            return Err(Error::Config {
                what: "a session table needs a capacity of at least 16 and timeouts of more than 0",
            });
        }
        Ok(Self {
            shards: std::array::from_fn(|_| RwLock::new(HashMap::new())),
            shard_capacity: config.capacity / SHARDS,
            idle_timeout: config.idle_timeout,
            max_age: config.max_age,
            freeze_after: config.freeze_after,
            start: now,
            inserted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    /// Adds a session. If its part of the table is full, an expired one makes room, or else another one, which is told.
    pub fn insert(&self, session: Arc<Session>, now: Instant) -> Option<SessionSummary> {
        let now = now.saturating_duration_since(self.start);
        let id = session.id();
        // What was resumed is as old as the trust that it stands on.
        let inserted = now.saturating_sub(session.created().since(session.authenticated()));
        let mut shard = self.shard(&id).write();
        let mut evicted = None;
        if shard.len() >= self.shard_capacity {
            let victim = self.to_evict(&shard, now);
            evicted = victim.and_then(|id| shard.remove(&id));
            evicted = evicted.filter(|entry| self.is_live(entry, now));
            let counter = if evicted.is_some() {
                &self.evicted
            } else {
                &self.expired
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.inserted.fetch_add(1, Ordering::Relaxed);
        shard.insert(
            id,
            Entry {
                held: Held::Ready(session),
                inserted,
                used: AtomicU64::new(millis(now)),
            },
        );
        evicted.and_then(|entry| entry.held.summary())
    }

    /// The live session with this id; its idle time begins anew.
    pub fn get(&self, id: &SessionId, now: Instant) -> Option<Arc<Session>> {
        let now = now.saturating_duration_since(self.start);
        {
            let shard = self.shard(id).read();
            let entry = shard.get(id).filter(|entry| self.is_live(entry, now))?;
            entry.used.fetch_max(millis(now), Ordering::Relaxed);
            if let Some(session) = entry.held.ready() {
                return Some(session);
            }
        }
        self.shard(id).write().get_mut(id)?.held.thaw()
    }

    /// Takes a session out: it is closed, or its peer may no longer talk.
    pub fn remove(&self, id: &SessionId) -> Option<SessionSummary> {
        self.shard(id).write().remove(id)?.held.summary()
    }

    /// Takes out all sessions of peers that `is_refused` names, and says how many that were: those of a peer whose key
    /// is trusted no more can neither carry anything nor be resumed.
    pub fn remove_peers(&self, is_refused: impl Fn(&str, Fingerprint) -> bool) -> usize {
        let refused = |entry: &Entry| match &entry.held {
            Held::Ready(session) => is_refused(session.peer_name(), session.peer_fingerprint()),
            Held::Frozen(frozen) => is_refused(&frozen.peer().name, frozen.peer().fingerprint),
            Held::Nothing => true,
        };
        let each = |shard: &RwLock<HashMap<SessionId, Entry>>| {
            let mut shard = shard.write();
            let before = shard.len();
            shard.retain(|_, entry| !refused(entry));
            before - shard.len()
        };
        self.shards.iter().map(each).sum()
    }

    /// Drops what has expired and says how many that were, and makes idle sessions small; call it every ten seconds or
    /// so. Expired sessions are not found before that either.
    pub fn sweep(&self, now: Instant) -> usize {
        let age = now.saturating_duration_since(self.start);
        let each = |shard: &RwLock<HashMap<SessionId, Entry>>| {
            let mut shard = shard.write();
            let dropped = self.drop_expired(&mut shard, age);
            for entry in shard.values_mut() {
                if age.saturating_sub(entry.used()) >= self.freeze_after {
                    entry.held.freeze(now);
                }
            }
            dropped
        };
        self.shards.iter().map(each).sum()
    }

    /// All sessions, in no order, for people to look at.
    pub fn sessions(&self) -> Vec<SessionSummary> {
        let each = |shard: &RwLock<HashMap<SessionId, Entry>>| {
            let shard = shard.read();
            let summaries = shard.values().filter_map(|entry| entry.held.summary());
            summaries.collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(each).collect()
    }

    /// What the table did so far.
    pub fn stats(&self) -> TableStats {
        TableStats {
            sessions: self.shards.iter().map(|shard| shard.read().len()).sum(),
            inserted: self.inserted.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    fn drop_expired(&self, shard: &mut HashMap<SessionId, Entry>, now: Duration) -> usize {
        let before = shard.len();
        shard.retain(|_, entry| self.is_live(entry, now));
        let dropped = before - shard.len();
        self.expired.fetch_add(
            u64::try_from(dropped).unwrap_or_default(),
            Ordering::Relaxed,
        );
        dropped
    }

    /// Among some entries: one that has expired, or else of the peer that has the most of them, the one used longest ago.
    fn to_evict(&self, shard: &HashMap<SessionId, Entry>, now: Duration) -> Option<SessionId> {
        let some = || shard.iter().take(SAMPLE);
        if let Some((id, _)) = some().find(|(_, entry)| !self.is_live(entry, now)) {
            return Some(*id);
        }
        let count = |peer: Option<&str>| {
            let others = some().map(|(_, entry)| entry.held.peer());
            others.filter(|other| *other == peer).count()
        };
        let rank = |entry: &Entry| (count(entry.held.peer()), Reverse(entry.used()));
        let (id, _) = some().max_by_key(|(_, entry)| rank(entry))?;
        Some(*id)
    }

    fn is_live(&self, entry: &Entry, now: Duration) -> bool {
        now.saturating_sub(entry.used()) < self.idle_timeout
            && now.saturating_sub(entry.inserted) < self.max_age
    }

    fn shard(&self, id: &SessionId) -> &RwLock<HashMap<SessionId, Entry>> {
        // Ids come out of HKDF, so that any of their bits do.
        &self.shards[usize::from(id.as_bytes()[0]) % SHARDS]
    }
}

impl Entry {
    fn used(&self) -> Duration {
        Duration::from_millis(self.used.load(Ordering::Relaxed))
    }
}

/// What a [`SessionTable`] did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct TableStats {
    /// Sessions in it now, expired ones that were not swept too.
    pub sessions: usize,
    /// Sessions added.
    pub inserted: u64,
    /// Sessions dropped for their age or idleness.
    pub expired: u64,
    /// Sessions dropped to make room.
    pub evicted: u64,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Enough that threads seldom meet on one lock.
const SHARDS: usize = 16;
/// How many entries are looked at to find one to evict: enough that a peer with most of the table has most of these.
const SAMPLE: usize = 32;
