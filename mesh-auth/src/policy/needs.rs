//! Which headers and claims the rules of a policy read.

use std::collections::BTreeSet;

use http::HeaderName;

use super::Needs;
use super::rule::Rule;
use super::source::{Source, UserMatch};

pub(super) fn of(rules: &[Rule]) -> Needs {
    let mut headers = BTreeSet::new();
    let mut claims = BTreeSet::new();
    for rule in rules {
        if let Some(when) = rule.when() {
            headers.extend(when.headers());
            claims.extend(when.claims().map(Box::from));
        }
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
        // The compiler of conditions took each for a header's name.
        headers: headers
            .into_iter()
            .filter_map(|name| HeaderName::try_from(name).ok())
            .collect(),
        claims: claims.into_iter().collect(),
    }
}
