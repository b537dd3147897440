//! Which headers and claims the rules of a policy read.

use std::collections::BTreeSet;

use super::Needs;
use super::rule::Rule;
use super::source::{Source, UserMatch};

pub(super) fn of(rules: &[Rule]) -> Needs {
    let mut claims = BTreeSet::new();
    for rule in rules {
        let sources = rule.sources.iter().filter_map(|source| match source {
            Source::User(user) => Some(user),
            _ => None,
        });
        for user in sources.chain(&rule.users) {
            if let UserMatch::Claim { name, .. } = user {
                claims.insert(name.clone());
            }
        }
    }
    Needs {
        headers: Vec::new(),
        claims: claims.into_iter().collect(),
    }
}
