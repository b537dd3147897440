//! The memory itself: what was used longest ago goes first. Without a clock of its own.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::{StaleConfig, Weight};

/// The last good answers.
#[derive(Debug)]
pub(super) struct Table<K, A> {
    config: StaleConfig,
    entries: HashMap<K, Entry<A>>,
    /// Keys by when they were used last.
    order: BTreeMap<u64, K>,
    bytes: usize,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug)]
struct Entry<A> {
    answer: A,
    bytes: usize,
    kept_at: Instant,
    /// What was left when it was kept.
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
            uses: 0,
        }
    }

    /// Keeps `answer` in place of the last one.
    pub(super) fn put(&mut self, key: K, answer: A, weight: &Weight, now: Instant) {
        self.forget(&key);
        let life = weight.life.min(self.config.max_age);
        let (bytes, life) = (weight.bytes, life.saturating_sub(weight.age));
        if !self.has_room_for(bytes) || life.is_zero() {
            return;
        }
        self.uses += 1;
        let entry = Entry {
            answer,
            bytes,
            kept_at: now,
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
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.bytes;
            }
        }
    }

    /// The last good answer, and how long ago it was kept.
    pub(super) fn get(&mut self, key: &K, now: Instant) -> Option<(A, Duration)> {
        let entry = self.entries.get_mut(key)?;
        let age = now.saturating_duration_since(entry.kept_at);
        if age >= entry.life {
            self.forget(key);
            return None;
        }
        self.uses += 1;
        if let Some(key) = self.order.remove(&entry.used) {
            self.order.insert(self.uses, key);
        }
        entry.used = self.uses;
        Some((entry.answer.clone(), age))
    }

    pub(super) fn forget(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
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

#[cfg(test)]
mod tests;
