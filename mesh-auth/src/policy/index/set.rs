//! Sets of rules as bits, so that what many rules have in common is found for 64 of them at a time.

use super::MAX_WORDS;

/// A set of rules while a decision is taken, on the stack.
pub(super) struct Set {
    words: [u64; MAX_WORDS],
    len: usize,
}

impl Set {
    /// No rule, of a policy whose sets have `len` words.
    pub(super) fn empty(len: usize) -> Self {
        Self {
            words: [0; MAX_WORDS],
            len: len.min(MAX_WORDS),
        }
    }

    pub(super) fn clear(&mut self) {
        self.words_mut().fill(0);
    }

    pub(super) fn add(&mut self, rules: &Rules) {
        match rules {
            Rules::Few(rules) => {
                for &rule in rules {
                    if let Some(word) = self.words_mut().get_mut(usize::from(rule) / 64) {
                        *word |= 1 << (rule % 64);
                    }
                }
            }
            Rules::Many(words) => {
                for (own, other) in self.words_mut().iter_mut().zip(words) {
                    *own |= other;
                }
            }
        }
    }

    /// Keeps what `other` has too; whether there is anything.
    pub(super) fn keep(&mut self, other: &Self) -> bool {
        let mut any = 0;
        for (own, other) in self.words_mut().iter_mut().zip(other.words()) {
            *own &= other;
            any |= *own;
        }
        any != 0
    }

    pub(super) fn words(&self) -> &[u64] {
        self.words.get(..self.len).unwrap_or_default()
    }

    fn words_mut(&mut self) -> &mut [u64] {
        self.words.get_mut(..self.len).unwrap_or_default()
    }
}

/// A set of rules in the index: their numbers where there are few, a bit for each rule of the policy where there are many.
/// Either way adding it to a [`Set`] takes no longer than about a word for each 64 rules of the policy.
#[derive(Debug)]
pub(super) enum Rules {
    Few(Box<[u16]>),
    Many(Box<[u64]>),
}

impl Default for Rules {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

/// Rules that are being collected, in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Collected(Vec<u16>);

impl Collected {
    pub(super) fn add(&mut self, rule: u16) {
        if self.0.last() != Some(&rule) {
            self.0.push(rule);
        }
    }

    /// The set, for a policy whose sets have `words` words.
    pub(super) fn finish(self, words: usize) -> Rules {
        if self.0.len() <= words {
            return Rules::Few(self.0.into());
        }
        let mut bits = vec![0; words];
        for rule in self.0 {
            if let Some(word) = bits.get_mut(usize::from(rule) / 64) {
                *word |= 1 << (rule % 64);
            }
        }
        Rules::Many(bits.into())
    }

    /// Adds rules that come after these.
    pub(super) fn append(&mut self, rules: Self) {
        rules.0.into_iter().for_each(|rule| self.add(rule));
    }
}
