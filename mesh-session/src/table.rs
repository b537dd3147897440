//! The sessions of a node by id, bounded in number, idle time and age.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::RwLock;

use crate::Error;
use crate::Session;
use crate::SessionId;

/// Bounds of a [`SessionTable`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TableConfig {
    /// The most sessions held; at the bound, a new one replaces the one used longest ago in its sixteenth of the table.
    /// Default 65,536, at least 16.
    pub capacity: usize,
    /// How long a session lives without being looked up. Default 15 min, more than 0.
    pub idle_timeout: Duration,
    /// How long a session lives at most. Default 1 h, more than 0.
    pub max_age: Duration,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            capacity: 65_536,
            idle_timeout: Duration::from_mins(15),
            max_age: Duration::from_hours(1),
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
}

/// Sessions by id. A lookup takes one shared lock on a sixteenth of the table and allocates nothing.
#[derive(Debug)]
pub struct SessionTable {
    shards: [RwLock<HashMap<SessionId, Entry>>; SHARDS],
    shard_capacity: usize,
    idle_timeout: Duration,
    max_age: Duration,
    start: Instant,
    inserted: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    inserted: Duration,
    /// Milliseconds since the table was made.
    used: AtomicU64,
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
            start: now,
            inserted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    /// Adds a session. If its part of the table is full, expired ones make room, or else the one used longest ago,
    /// which is returned.
    pub fn insert(&self, session: Arc<Session>, now: Instant) -> Option<Arc<Session>> {
        let now = now.saturating_duration_since(self.start);
        let id = session.id();
        let mut shard = self.shard(&id).write();
        let mut evicted = None;
        if shard.len() >= self.shard_capacity {
            self.drop_expired(&mut shard, now);
        }
        if shard.len() >= self.shard_capacity {
            let oldest = shard
                .iter()
                .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed));
            let oldest = oldest.map(|(id, _)| *id);
            evicted = oldest
                .and_then(|id| shard.remove(&id))
                .map(|entry| entry.session);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        self.inserted.fetch_add(1, Ordering::Relaxed);
        shard.insert(
            id,
            Entry {
                session,
                inserted: now,
                used: AtomicU64::new(millis(now)),
            },
        );
        evicted
    }

    /// The live session with this id; its idle time begins anew.
    pub fn get(&self, id: &SessionId, now: Instant) -> Option<Arc<Session>> {
        let now = now.saturating_duration_since(self.start);
        let shard = self.shard(id).read();
        let entry = shard.get(id).filter(|entry| self.is_live(entry, now))?;
        entry.used.fetch_max(millis(now), Ordering::Relaxed);
        Some(Arc::clone(&entry.session))
    }

    /// Takes a session out, for a peer that may no longer talk.
    pub fn remove(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.shard(id).write().remove(id).map(|entry| entry.session)
    }

    /// Drops what has expired and says how many that were; call it every minute or so. Expired sessions are not found
    /// before that either.
    pub fn sweep(&self, now: Instant) -> usize {
        let now = now.saturating_duration_since(self.start);
        self.shards
            .iter()
            .map(|shard| self.drop_expired(&mut shard.write(), now))
            .sum()
    }

    /// All sessions, in no order, for people to look at.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let each = |shard: &RwLock<HashMap<SessionId, Entry>>| {
            shard
                .read()
                .values()
                .map(|entry| Arc::clone(&entry.session))
                .collect::<Vec<_>>()
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

    fn is_live(&self, entry: &Entry, now: Duration) -> bool {
        let used = Duration::from_millis(entry.used.load(Ordering::Relaxed));
        now.saturating_sub(used) < self.idle_timeout
            && now.saturating_sub(entry.inserted) < self.max_age
    }

    fn shard(&self, id: &SessionId) -> &RwLock<HashMap<SessionId, Entry>> {
        // Ids come out of HKDF, so that any of their bits do.
        &self.shards[usize::from(id.as_bytes()[0]) % SHARDS]
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
