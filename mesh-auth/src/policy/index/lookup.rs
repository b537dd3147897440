//! Rules by a value that they name.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use super::set::{Collected, Rules, Set};

/// What the keys of a [`Lookup`] are measured by.
pub(super) trait Length {
    fn length(&self) -> usize;
}

impl Length for [u8] {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Length for str {
    fn length(&self) -> usize {
        self.len()
    }
}

/// Rules by a text that they name. A text that is longer than all of these is not even hashed: what a caller sends costs
/// no more than what the rules say.
#[derive(Debug)]
pub(super) struct Lookup<K: Eq + Hash, R = Rules> {
    rules: HashMap<K, R>,
    longest: usize,
}

impl<K: Eq + Hash, R> Default for Lookup<K, R> {
    fn default() -> Self {
        Self {
            rules: HashMap::new(),
            longest: 0,
        }
    }
}

impl<K: Eq + Hash, R> Lookup<K, R> {
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<&R>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + Length + ?Sized,
    {
        if key.length() > self.longest {
            return None;
        }
        self.rules.get(key)
    }

    pub(super) fn entry<Q>(&mut self, key: &Q) -> &mut R
    where
        K: Borrow<Q> + for<'a> From<&'a Q>,
        Q: Eq + Hash + Length + ?Sized,
        R: Default,
    {
        self.longest = self.longest.max(key.length());
        self.rules.entry(K::from(key)).or_default()
    }

    pub(super) fn map<T>(self, mut finish: impl FnMut(R) -> T) -> Lookup<K, T> {
        Lookup {
            rules: self
                .rules
                .into_iter()
                .map(|(key, value)| (key, finish(value)))
                .collect(),
            longest: self.longest,
        }
    }
}

impl<K: Eq + Hash> Lookup<K> {
    /// Adds the rules that name `key`.
    pub(super) fn add_to<Q>(&self, set: &mut Set, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + Length + ?Sized,
    {
        if let Some(rules) = self.get(key) {
            set.add(rules);
        }
    }
}

impl<K: Eq + Hash> Lookup<K, Collected> {
    pub(super) fn finish(self, words: usize) -> Lookup<K> {
        self.map(|rules| rules.finish(words))
    }
}
