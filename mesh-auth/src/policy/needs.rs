//! Which headers and claims a policy reads.

use std::collections::BTreeSet;

use http::HeaderName;

use super::Needs;
use super::intentions::Intentions;
use super::rule::Rule;
use super::source::{Source, UserMatch};

pub(super) fn of(rules: &[Rule], intentions: &Intentions) -> Needs {
    let mut headers: BTreeSet<&str> = intentions.headers().map(HeaderName::as_str).collect();
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
