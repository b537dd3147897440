//! How much is remembered, and of whom most.

use std::collections::BTreeSet;
use std::sync::Arc;

/// An amount of what is remembered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Amount {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// The sum over all callers, and their order: whoever has most is found without a look at the others.
#[derive(Debug, Default)]
pub(super) struct Held {
    all: Amount,
    by_entries: Ranking,
    by_bytes: Ranking,
}

impl Held {
    /// What is remembered of all.
    pub(super) const fn all(&self) -> Amount {
        self.all
    }

    /// Takes in that of `caller`, of whom `before` was remembered, now `after` is.
    pub(super) fn change(&mut self, caller: &Arc<str>, before: Amount, after: Amount) {
        self.all.entries = self.all.entries - before.entries + after.entries;
        self.all.bytes = self.all.bytes - before.bytes + after.bytes;
        self.by_entries
            .change(caller, before.entries, after.entries);
        self.by_bytes.change(caller, before.bytes, after.bytes);
    }

    /// A caller with most entries, and how many.
    pub(super) fn most_entries(&self) -> Option<(usize, Arc<str>)> {
        self.by_entries.0.last().cloned()
    }

    /// A caller with most bytes.
    pub(super) fn most_bytes(&self) -> Option<Arc<str>> {
        self.by_bytes.0.last().map(|(_, caller)| Arc::clone(caller))
    }
}

/// Those who have something, whoever has least first.
#[derive(Debug, Default)]
struct Ranking(BTreeSet<(usize, Arc<str>)>);

impl Ranking {
    fn change(&mut self, caller: &Arc<str>, before: usize, after: usize) {
        if before == after {
            return;
        }
        if before > 0 {
            self.0.remove(&(before, Arc::clone(caller)));
        }
        if after > 0 {
            self.0.insert((after, Arc::clone(caller)));
        }
    }
}
