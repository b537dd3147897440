//! Which headers and claims a policy reads.

use std::collections::BTreeSet;

use http::HeaderName;

use super::intentions::Intentions;
use super::rule::Rule;
use super::source::{Source, UserMatch};
use super::{Call, Needs, Policy};

/// What any decision can depend on.
pub(super) fn of(rules: &[Rule], intentions: &Intentions) -> Needs {
    read_by(rules.iter(), intentions)
}

/// What a decision about `call` can depend on: rules about other services, ports, methods, paths and times have no say.
pub(super) fn for_call(policy: &Policy, call: &Call<'_>) -> Needs {
    let rules = policy.rules.iter().filter(|rule| {
        rule.covers_service(call.service) && rule.first_failure_of_target(call).is_none()
    });
    read_by(rules, &policy.intentions)
}

fn read_by<'a, R: Iterator<Item = &'a Rule>>(rules: R, intentions: &Intentions) -> Needs {
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
