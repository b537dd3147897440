//! How much a rule leaves open, by the table of [`Change`](super::Change).

use super::super::path::PathPattern;
use super::super::rule::Rule;
use super::super::source::{ANY, Source, UserMatch};
use super::List;

/// What the parts of a rule count, by entry.
pub(super) struct Breadth {
    service: u64,
    from: Vec<u64>,
    users: Vec<u64>,
    methods: Vec<u64>,
    paths: Vec<u64>,
    ports: Vec<u64>,
}

impl Breadth {
    pub(super) fn of(rule: &Rule) -> Self {
        let or = |counts: Vec<u64>, open: u64| {
            if counts.is_empty() {
                vec![open]
            } else {
                counts
            }
        };
        let to = &rule.config.to;
        let path = |pattern: &PathPattern| match pattern {
            PathPattern::Exact(_) => 1,
            PathPattern::Template { is_open: false, .. } => 4,
            _ => 16,
        };
        let from = |source: &Source| match source {
            Source::Id(_) => 1,
            Source::Below(_) | Source::User(_) => 16,
            Source::Domain(_) => 64,
            Source::Any | Source::Anonymous => 256,
        };
        let user = |user: &UserMatch| match user {
            UserMatch::Subject(_) => 1,
            UserMatch::Any => 16,
            _ => 8,
        };
        Self {
            service: if to.service == ANY { 64 } else { 1 },
            from: rule.sources.iter().map(from).collect(),
            users: or(rule.users.iter().map(user).collect(), 1),
            methods: or(to.methods.iter().map(|_| 1).collect(), 8),
            paths: or(rule.paths.iter().map(path).collect(), 64),
            ports: or(to.ports.iter().map(|_| 1).collect(), 1),
        }
    }

    fn list(&self, list: List) -> &[u64] {
        match list {
            List::From => &self.from,
            List::Users => &self.users,
            List::Methods => &self.methods,
            List::Paths => &self.paths,
            List::Ports => &self.ports,
        }
    }

    pub(super) fn entry(&self, list: List, index: usize) -> u64 {
        self.list(list).get(index).copied().unwrap_or(1)
    }

    /// The product of all parts but one.
    pub(super) fn beside(&self, list: List) -> u64 {
        let others = LISTS.into_iter().filter(|other| *other != list);
        others.fold(self.service, |product, other| {
            product.saturating_mul(sum(self.list(other)))
        })
    }

    pub(super) fn product(&self) -> u64 {
        self.beside(List::From).saturating_mul(sum(&self.from))
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts
        .iter()
        .fold(0, |sum, count| sum.saturating_add(*count))
}

const LISTS: [List; 5] = [
    List::From,
    List::Users,
    List::Methods,
    List::Paths,
    List::Ports,
];
