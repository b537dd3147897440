//! The memory itself: what was used longest ago goes first. Without a clock of its own.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};
use std::time::{Duration, Instant};

use super::{Arrival, StaleConfig, Weight};

/// The last good answers.
#[derive(Debug)]
pub(super) struct Table<K, A> {
    config: StaleConfig,
    entries: HashMap<K, Entry<A>>,
    /// Keys by when they were used last.
    order: BTreeMap<u64, K>,
    bytes: usize,
    /// For all keys of one slot, the newest answer that nothing is kept of any more: an older one must not come back. That of
    /// another key may be lost to it, which is rare and does no harm.
    gone: Box<[u64]>,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug)]
struct Entry<A> {
    answer: A,
    bytes: usize,
    arrival: Arrival,
    /// What was left of its life when it arrived.
    life: Duration,
    used: u64,
}

impl<K: Clone + Eq + Hash, A: Clone> Table<K, A> {
    pub(super) fn new(config: StaleConfig) -> Self {
        Self {
            config,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
            gone: [0; SLOTS].into(),
            uses: 0,
        }
    }

    /// Keeps `answer` in place of the last one, unless that one is newer.
    pub(super) fn put(&mut self, key: K, answer: A, weight: &Weight, arrival: Arrival) {
        let gone = self.gone.get(self.slot(&key)).copied();
        if gone > Some(arrival.number) || self.has_newer(&key, arrival) {
            return;
        }
        let life = weight.life.min(self.config.max_age);
        let (bytes, life) = (weight.bytes, life.saturating_sub(weight.age));
        if !self.has_room_for(bytes) || life.is_zero() {
            self.forget(&key, arrival);
            return;
        }
        self.remove(&key);
        self.uses += 1;
        let entry = Entry {
            answer,
            bytes,
            arrival,
            life,
            used: self.uses,
        };
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key, entry);
        self.bytes += bytes;
        while self.entries.len() > self.config.max_entries.get()
            || self.bytes > self.config.max_bytes
        {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.remove(&oldest);
        }
    }

    /// The last good answer, and how long ago it arrived.
    pub(super) fn get(&mut self, key: &K, now: Instant) -> Option<(A, Duration)> {
        let entry = self.entries.get_mut(key)?;
        let age = now.saturating_duration_since(entry.arrival.at);
        if age >= entry.life {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        if let Some(key) = self.order.remove(&entry.used) {
            self.order.insert(self.uses, key);
        }
        entry.used = self.uses;
        Some((entry.answer.clone(), age))
    }

    /// Forgets the last answer, unless it is newer, and those before `arrival` that come in later.
    pub(super) fn forget(&mut self, key: &K, arrival: Arrival) {
        if !self.has_newer(key, arrival) {
            self.remove(key);
            self.note_gone(key, arrival);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.bytes;
            self.note_gone(key, entry.arrival);
        }
    }

    fn has_newer(&self, key: &K, arrival: Arrival) -> bool {
        let last = self.entries.get(key);
        last.is_some_and(|entry| entry.arrival.number > arrival.number)
    }

    fn note_gone(&mut self, key: &K, arrival: Arrival) {
        let slot = self.slot(key);
        if let Some(newest) = self.gone.get_mut(slot) {
            *newest = arrival.number.max(*newest);
        }
    }

    fn slot(&self, key: &K) -> usize {
        let hash = self.entries.hasher().hash_one(key);
        usize::try_from(hash % SLOTS as u64).unwrap_or_default()
    }

    /// Whether an answer of so many bytes is kept at all.
    pub(super) const fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= self.config.max_answer_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// 8 KiB.
const SLOTS: usize = 1024;

#[cfg(test)]
mod tests;
