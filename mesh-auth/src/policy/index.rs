//! Finds the rules that name a call's service and caller without looking at the others.

use std::collections::HashMap;

use super::rule::Rule;
use super::source::{ANY, Source, UserMatch, each_text};
use super::{Action, Call};
use crate::spiffe::{SpiffeId, TrustDomain};

/// The first rule of each action that matches a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) deny: Option<usize>,
    pub(super) allow: Option<usize>,
    pub(super) audit: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    services: HashMap<Box<str>, BySource>,
    every_service: BySource,
}

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (position, rule) in rules.iter().enumerate() {
            let service = rule.config.to.service.as_str();
            let by_source = if service == ANY {
                &mut index.every_service
            } else {
                index.services.entry(service.into()).or_default()
            };
            for source in &rule.sources {
                by_source.list_mut(source).add(rule.config.action, position);
            }
        }
        index
    }

    pub(super) fn first_matches(&self, rules: &[Rule], call: &Call<'_>) -> Found {
        let mut found = Found::default();
        for by_source in self
            .services
            .get(call.service)
            .into_iter()
            .chain([&self.every_service])
        {
            by_source.visit(call, |list| list.update(&mut found, rules, call));
        }
        found
    }
}

#[derive(Debug, Default)]
struct BySource {
    any: List,
    ids: HashMap<SpiffeId, List>,
    below: HashMap<Box<str>, List>,
    /// Length of the longest key of `below`: bounds the work for a caller with a long path.
    longest_below: usize,
    domains: HashMap<TrustDomain, List>,
    anonymous: List,
    groups: HashMap<Box<str>, List>,
    roles: HashMap<Box<str>, List>,
    claims: HashMap<Box<str>, HashMap<Box<str>, List>>,
    issuers: HashMap<Box<str>, List>,
}

impl BySource {
    fn list_mut(&mut self, source: &Source) -> &mut List {
        match source {
            // `Source::parse` makes none of the last two.
            Source::Any | Source::User(UserMatch::Any | UserMatch::Subject(_)) => &mut self.any,
            Source::Id(id) => self.ids.entry(id.clone()).or_default(),
            Source::Below(prefix) => {
                self.longest_below = self.longest_below.max(prefix.len());
                self.below.entry(prefix.clone()).or_default()
            }
            Source::Domain(domain) => self.domains.entry(domain.clone()).or_default(),
            Source::Anonymous => &mut self.anonymous,
            Source::User(UserMatch::Group(group)) => self.groups.entry(group.clone()).or_default(),
            Source::User(UserMatch::Role(role)) => self.roles.entry(role.clone()).or_default(),
            Source::User(UserMatch::Claim { name, value }) => self
                .claims
                .entry(name.clone())
                .or_default()
                .entry(value.clone())
                .or_default(),
            Source::User(UserMatch::Issuer(issuer)) => {
                self.issuers.entry(issuer.clone()).or_default()
            }
        }
    }

    /// Calls `visit` with each list whose source matches the caller.
    fn visit(&self, call: &Call<'_>, mut visit: impl FnMut(&List)) {
        if call.caller.is_authenticated() {
            visit(&self.any);
        } else {
            visit(&self.anonymous);
        }
        if let Some(id) = &call.caller.spiffe_id {
            self.ids.get(id).into_iter().for_each(&mut visit);
            self.domains
                .get(id.trust_domain())
                .into_iter()
                .for_each(&mut visit);
            for (slash, _) in id
                .as_str()
                .match_indices('/')
                .take_while(|(slash, _)| *slash < self.longest_below)
            {
                let prefix = id.as_str().get(..=slash).unwrap_or_default();
                self.below.get(prefix).into_iter().for_each(&mut visit);
            }
        }
        let Some(user) = call.caller.user.as_deref() else {
            return;
        };
        for group in &user.groups {
            self.groups.get(&**group).into_iter().for_each(&mut visit);
        }
        for role in &user.roles {
            self.roles.get(&**role).into_iter().for_each(&mut visit);
        }
        self.issuers
            .get(&*user.issuer)
            .into_iter()
            .for_each(&mut visit);
        for (name, claim) in &user.claims {
            if let Some(values) = self.claims.get(name) {
                each_text(claim, &mut |text| {
                    values.get(text).into_iter().for_each(&mut visit);
                });
            }
        }
    }
}

/// Positions of rules, ascending.
#[derive(Debug, Default)]
struct List {
    deny: Vec<usize>,
    allow: Vec<usize>,
    audit: Vec<usize>,
}

impl List {
    fn add(&mut self, action: Action, position: usize) {
        let list = match action {
            Action::Deny => &mut self.deny,
            Action::Allow => &mut self.allow,
            Action::Audit => &mut self.audit,
        };
        if list.last() != Some(&position) {
            list.push(position);
        }
    }

    fn update(&self, found: &mut Found, rules: &[Rule], call: &Call<'_>) {
        for (list, best) in [
            (&self.deny, &mut found.deny),
            (&self.allow, &mut found.allow),
            (&self.audit, &mut found.audit),
        ] {
            let before = best.unwrap_or(usize::MAX);
            let matches = |position: &usize| {
                rules
                    .get(*position)
                    .is_some_and(|rule| rule.first_failure_beside_names(call).is_none())
            };
            let first = list
                .iter()
                .take_while(|position| **position < before)
                .find(|position| matches(position));
            *best = first.copied().or(*best);
        }
    }
}
