//! Rules by who calls.

use super::lookup::Lookup;
use super::set::{Collected, Rules, Set};
use crate::caller::{Caller, User};
use crate::policy::source::{Source, UserMatch, each_text};

/// Rules by caller (`from`).
#[derive(Debug, Default)]
pub(super) struct Sources<R = Rules> {
    any: R,
    anonymous: R,
    ids: Lookup<Box<str>, R>,
    /// By what comes before the last slash and that slash.
    below: Lookup<Box<str>, R>,
    domains: Lookup<Box<str>, R>,
    users: Credentials<R>,
}

impl Sources<Collected> {
    pub(super) fn add(&mut self, sources: &[Source], rule: u16) {
        for source in sources {
            match source {
                Source::Any => self.any.add(rule),
                Source::Anonymous => self.anonymous.add(rule),
                Source::Id(id) => self.ids.entry(id.as_str()).add(rule),
                Source::Below(prefix) => self.below.entry(&**prefix).add(rule),
                Source::Domain(domain) => self.domains.entry(domain.as_str()).add(rule),
                Source::User(user) => self.users.add(user, rule),
            }
        }
    }

    pub(super) fn finish(self, words: usize) -> Sources {
        Sources {
            any: self.any.finish(words),
            anonymous: self.anonymous.finish(words),
            ids: self.ids.finish(words),
            below: self.below.finish(words),
            domains: self.domains.finish(words),
            users: self.users.finish(words),
        }
    }
}

impl Sources {
    pub(super) fn add_to(&self, set: &mut Set, caller: &Caller) {
        set.add(if caller.is_authenticated() {
            &self.any
        } else {
            &self.anonymous
        });
        if let Some(id) = &caller.spiffe_id {
            self.ids.add_to(set, id.as_str());
            self.domains.add_to(set, id.trust_domain().as_str());
            if !self.below.is_empty() {
                for (slash, _) in id.as_str().match_indices('/') {
                    self.below
                        .add_to(set, id.as_str().get(..=slash).unwrap_or_default());
                }
            }
        }
        if let Some(user) = caller.user.as_deref() {
            self.users.add_to(set, user);
        }
    }
}

/// Rules by the credential that a call has to carry as well (`users`).
#[derive(Debug, Default)]
pub(super) struct Users<R = Rules> {
    /// Of rules that ask for none.
    open: R,
    credentials: Credentials<R>,
    is_open: bool,
}

impl Users<Collected> {
    pub(super) fn add(&mut self, users: &[UserMatch], rule: u16) {
        if users.is_empty() {
            self.open.add(rule);
        }
        for user in users {
            self.credentials.add(user, rule);
        }
    }

    pub(super) fn finish(self, words: usize) -> Users {
        Users {
            open: self.open.finish(words),
            is_open: self.credentials.is_empty,
            credentials: self.credentials.finish(words),
        }
    }
}

impl Users {
    /// Whether no rule asks for a credential.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn add_to(&self, set: &mut Set, caller: &Caller) {
        set.add(&self.open);
        if let Some(user) = caller.user.as_deref() {
            self.credentials.add_to(set, user);
        }
    }
}

/// Rules by what a credential says. A credential costs a lookup for each of its groups, roles and claims that rules name:
/// its own length bounds them.
#[derive(Debug)]
struct Credentials<R = Rules> {
    any: R,
    groups: Lookup<Box<str>, R>,
    roles: Lookup<Box<str>, R>,
    claims: Lookup<Box<str>, Lookup<Box<str>, R>>,
    issuers: Lookup<Box<str>, R>,
    subjects: Lookup<Box<str>, R>,
    is_empty: bool,
}

impl<R: Default> Default for Credentials<R> {
    fn default() -> Self {
        Self {
            any: R::default(),
            groups: Lookup::default(),
            roles: Lookup::default(),
            claims: Lookup::default(),
            issuers: Lookup::default(),
            subjects: Lookup::default(),
            is_empty: true,
        }
    }
}

impl Credentials<Collected> {
    fn add(&mut self, user: &UserMatch, slot: u16) {
        self.is_empty = false;
        match user {
            UserMatch::Any => self.any.add(slot),
            UserMatch::Group(group) => self.groups.entry(&**group).add(slot),
            UserMatch::Role(role) => self.roles.entry(&**role).add(slot),
            UserMatch::Claim { name, value } => {
                self.claims.entry(&**name).entry(&**value).add(slot);
            }
            UserMatch::Issuer(issuer) => self.issuers.entry(&**issuer).add(slot),
            UserMatch::Subject(subject) => self.subjects.entry(&**subject).add(slot),
        }
    }

    fn finish(self, words: usize) -> Credentials {
        Credentials {
            any: self.any.finish(words),
            groups: self.groups.finish(words),
            roles: self.roles.finish(words),
            claims: self.claims.map(|values| values.finish(words)),
            issuers: self.issuers.finish(words),
            subjects: self.subjects.finish(words),
            is_empty: self.is_empty,
        }
    }
}

impl Credentials {
    fn add_to(&self, set: &mut Set, user: &User) {
        if self.is_empty {
            return;
        }
        set.add(&self.any);
        self.issuers.add_to(set, &*user.issuer);
        self.subjects.add_to(set, &*user.subject);
        if !self.groups.is_empty() {
            for group in &user.groups {
                self.groups.add_to(set, &**group);
            }
        }
        if !self.roles.is_empty() {
            for role in &user.roles {
                self.roles.add_to(set, &**role);
            }
        }
        if !self.claims.is_empty() {
            for (name, claim) in &user.claims {
                if let Some(values) = self.claims.get(&**name) {
                    each_text(claim, &mut |text| values.add_to(set, text));
                }
            }
        }
    }
}
