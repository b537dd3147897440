//! Finds the rules that match a call, at a cost that does not depend on how the rules are made.
//!
//! For each part of a call (caller, called service, user, port, method, path) the index gives the set of rules whose part
//! matches; what is in all of these sets matches. Sets are bits, 64 rules to a word ([`set`]), so that even where every
//! rule matches in every part but one, 10,000 rules are some hundred words a part. What a part's set is put together from
//! is found by lookups of what the call says, never by going through rules.
//!
//! Rules stand in the order deny, allow, audit, and among these as they were written: the first of each that matches is
//! the first bit of its range. Only what can't be looked up is asked of the rules that are left: whether they have ended,
//! and their conditions.
//!
//! This is the bit vector scheme of packet filters (Lakshman and Stiliadis, "High-speed policy-based packet forwarding
//! using efficient multi-dimensional range matching", SIGCOMM 1998, section 3).

mod callers;
mod lookup;
mod paths;
mod set;

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use http::Method;

use self::callers::{Sources, Users};
use self::lookup::Lookup;
use self::paths::{Paths, Reading};
use self::set::{Collected, Rules, Set};
use super::rule::Rule;
use super::source::ANY;
use super::{Action, Call, MAX_RULES};

/// Words of a set of the largest policy.
const MAX_WORDS: usize = MAX_RULES.div_ceil(64);

/// The first rule of each action that matches a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) deny: Option<usize>,
    /// Not looked for where a rule denies.
    pub(super) allow: Option<usize>,
    /// Not looked for where a rule denies.
    pub(super) audit: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Index {
    words: usize,
    slots: Vec<Slot>,
    deny: Range<usize>,
    allow: Range<usize>,
    audit: Range<usize>,
    /// For each word, when the last of its rules ends.
    ends: Vec<u64>,
    sources: Sources,
    services: Lookup<Box<str>>,
    every_service: Rules,
    users: Users,
    ports: Part<u16>,
    methods: Part<Method>,
    every_path: Rules,
    allowed_paths: Paths,
    refused_paths: Paths,
    /// Rules that match what has neither method nor path.
    not_http: Rules,
}

/// A rule at its place in the order of the sets.
#[derive(Debug)]
struct Slot {
    /// Its place in the policy.
    rule: u16,
    /// The first second in which it does not count any more.
    end: u64,
}

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        Builder::default().build(rules)
    }

    pub(super) fn first_matches(&self, rules: &[Rule], call: &Call<'_>) -> Found {
        let matching = self.matching(call);
        let words = matching.words();
        let first = |range| self.first(range, words, rules, call);
        if let Some(deny) = first(&self.deny) {
            return Found {
                deny: Some(deny),
                ..Found::default()
            };
        }
        Found {
            deny: None,
            allow: first(&self.allow),
            audit: first(&self.audit),
        }
    }

    /// The rules whose literal parts all match.
    fn matching(&self, call: &Call<'_>) -> Set {
        let mut all = Set::empty(self.words);
        let mut part = Set::empty(self.words);
        self.sources.add_to(&mut all, call.caller);
        let mut narrow = |add: &dyn Fn(&mut Set)| {
            part.clear();
            add(&mut part);
            all.keep(&part)
        };
        let services = |set: &mut Set| {
            self.services.add_to(set, call.service);
            set.add(&self.every_service);
        };
        // Ends where nothing is left.
        let _ = narrow(&services)
            && (self.users.is_open() || narrow(&|set| self.users.add_to(set, call.caller)))
            && (self.ports.is_open() || narrow(&|set| self.ports.add_to(set, &call.port)))
            && match &call.http {
                None => narrow(&|set| set.add(&self.not_http)),
                Some(http) => {
                    (self.methods.is_open() || narrow(&|set| self.methods.add_to(set, http.method)))
                        && narrow(&|set| {
                            set.add(&self.every_path);
                            self.allowed_paths.add_to(set, &http.plain_path);
                            self.refused_paths.add_to(set, &http.plain_path);
                        })
                }
            };
        all
    }

    /// The first rule of `range` among `matching` that has not ended and whose condition holds.
    fn first(
        &self,
        range: &Range<usize>,
        matching: &[u64],
        rules: &[Rule],
        call: &Call<'_>,
    ) -> Option<usize> {
        let words = range.start / 64..range.end.div_ceil(64);
        let ends = self.ends.get(words.clone())?;
        for ((at, &word), &end) in words.clone().zip(matching.get(words)?).zip(ends) {
            if call.now >= end {
                continue;
            }
            let mut rest = word;
            while rest != 0 {
                let slot = at * 64 + usize::try_from(rest.trailing_zeros()).unwrap_or_default();
                rest &= rest - 1;
                if !range.contains(&slot) {
                    continue;
                }
                let Some(slot) = self.slots.get(slot) else {
                    break;
                };
                let rule = usize::from(slot.rule);
                let holds = |rule: &Rule| rule.condition_holds(call);
                if call.now < slot.end && rules.get(rule).is_some_and(holds) {
                    return Some(rule);
                }
            }
        }
        None
    }
}

/// Rules by one part of a call; those that leave it open stand beside.
#[derive(Debug)]
struct Part<K, R = Rules> {
    open: R,
    by: HashMap<K, R>,
}

impl<K, R: Default> Default for Part<K, R> {
    fn default() -> Self {
        Self {
            open: R::default(),
            by: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Part<K, Collected> {
    /// Adds a rule that names `keys`, or leaves the part open where there are none.
    fn add(&mut self, keys: &[K], rule: u16) {
        if keys.is_empty() {
            self.open.add(rule);
        }
        for key in keys {
            self.by.entry(key.clone()).or_default().add(rule);
        }
    }

    fn finish(self, words: usize) -> Part<K> {
        Part {
            open: self.open.finish(words),
            by: self
                .by
                .into_iter()
                .map(|(key, rules)| (key, rules.finish(words)))
                .collect(),
        }
    }
}

impl<K: Eq + Hash> Part<K> {
    /// Whether no rule says anything about this part.
    fn is_open(&self) -> bool {
        self.by.is_empty()
    }

    fn add_to(&self, set: &mut Set, key: &K) {
        set.add(&self.open);
        if let Some(rules) = self.by.get(key) {
            set.add(rules);
        }
    }
}

struct Builder {
    sources: Sources<Collected>,
    services: Lookup<Box<str>, Collected>,
    every_service: Collected,
    users: Users<Collected>,
    ports: Part<u16, Collected>,
    methods: Part<Method, Collected>,
    every_path: Collected,
    allowed_paths: Paths<Collected>,
    refused_paths: Paths<Collected>,
    not_http: Collected,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            sources: Sources::default(),
            services: Lookup::default(),
            every_service: Collected::default(),
            users: Users::default(),
            ports: Part::default(),
            methods: Part::default(),
            every_path: Collected::default(),
            allowed_paths: Paths::new(Reading::AsIs),
            refused_paths: Paths::new(Reading::Folded),
            not_http: Collected::default(),
        }
    }
}

impl Builder {
    fn build(mut self, rules: &[Rule]) -> Index {
        let mut slots = Vec::with_capacity(rules.len());
        let [deny, allow, audit] = [Action::Deny, Action::Allow, Action::Audit].map(|action| {
            let start = slots.len();
            for (position, rule) in (0..).zip(rules) {
                if rule.config.action == action {
                    // MAX_RULES is less than 65,536.
                    self.add(rule, u16::try_from(slots.len()).unwrap_or(u16::MAX));
                    slots.push(Slot {
                        rule: position,
                        end: rule.end.unwrap_or(u64::MAX),
                    });
                }
            }
            start..slots.len()
        });
        let words = slots.len().div_ceil(64);
        let last_end = |slots: &[Slot]| slots.iter().map(|slot| slot.end).max().unwrap_or(0);
        Index {
            words,
            ends: slots.chunks(64).map(last_end).collect(),
            slots,
            deny,
            allow,
            audit,
            sources: self.sources.finish(words),
            services: self.services.finish(words),
            every_service: self.every_service.finish(words),
            users: self.users.finish(words),
            ports: self.ports.finish(words),
            methods: self.methods.finish(words),
            every_path: self.every_path.finish(words),
            allowed_paths: self.allowed_paths.finish(words),
            refused_paths: self.refused_paths.finish(words),
            not_http: self.not_http.finish(words),
        }
    }

    fn add(&mut self, rule: &Rule, slot: u16) {
        let service = rule.config.to.service.as_str();
        if service == ANY {
            self.every_service.add(slot);
        } else {
            self.services.entry(service).add(slot);
        }
        self.sources.add(&rule.sources, slot);
        self.users.add(&rule.users, slot);
        self.ports.add(&rule.config.to.ports, slot);
        self.methods.add(&rule.methods, slot);
        if rule.paths.is_empty() {
            self.every_path.add(slot);
        }
        let refuses = rule.config.action != Action::Allow;
        let paths = if refuses {
            &mut self.refused_paths
        } else {
            &mut self.allowed_paths
        };
        for pattern in &rule.paths {
            paths.add(pattern, slot);
        }
        if refuses || (rule.methods.is_empty() && rule.paths.is_empty()) {
            self.not_http.add(slot);
        }
    }
}
