//! What was found out lately, in bounded memory.

use std::collections::HashMap;

use parking_lot::Mutex;

/// A bounded map that forgets what was not used lately, in 16 parts so that threads seldom wait for each other.
#[derive(Debug)]
pub(super) struct Remembered<V> {
    shards: [Mutex<Generations<V>>; SHARDS],
    shard_capacity: usize,
}

impl<V: Clone> Remembered<V> {
    /// Holds at most about `capacity` values, and at least 32.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_shard| Mutex::new(Generations::default())),
            // Each shard has two generations.
            shard_capacity: (capacity / (2 * SHARDS)).max(1),
        }
    }

    pub(super) fn get(&self, key: &Fingerprint) -> Option<V> {
        self.shard(key).lock().get(key, self.shard_capacity)
    }

    pub(super) fn insert(&self, key: Fingerprint, value: V) {
        self.shard(&key)
            .lock()
            .insert(key, value, self.shard_capacity);
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, key: &Fingerprint) -> &Mutex<Generations<V>> {
        let [first, ..] = key;
        let [shard0, ..] = &self.shards;
        self.shards
            .get(usize::from(*first) % SHARDS)
            .unwrap_or(shard0)
    }
}

/// A SHA-256 hash.
pub(super) type Fingerprint = [u8; 32];

/// Entries start in the young generation; when that is full it becomes the old one, and the former old one is dropped.
/// Use brings an entry back.
#[derive(Debug)]
struct Generations<V> {
    young: HashMap<Fingerprint, V>,
    old: HashMap<Fingerprint, V>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<V: Clone> Generations<V> {
    fn get(&mut self, key: &Fingerprint, capacity: usize) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(*key, value.clone(), capacity);
        Some(value)
    }

    fn insert(&mut self, key: Fingerprint, value: V, capacity: usize) {
        if self.young.len() >= capacity {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

const SHARDS: usize = 16;
