//! Drafts least-privilege rules from recorded decisions.
//!
//! A draft allows what was seen and nothing else, but for three foldings that turn calls into rules:
//!
//! - A path segment that looks like an id (a number, a UUID, 16 or more hexadecimal digits, or 16 or more letters and digits
//!   that mix both) becomes `{id}` where it was seen with several values.
//! - Which user called through a workload does not matter, only who vouches for the user.
//! - Headers do not matter.
//!
//! Calls with the same caller, service and port that differ in method and path become one rule where that allows no
//! combination that was not seen. What a deny rule refused is no reason to allow anything, and nothing is drafted for callers
//! who prove nothing. Drafts are for people to read: nothing here applies them.

mod fold;

use std::collections::{BTreeMap, BTreeSet};

use super::change::smallest::slug;
use super::time::date;
use super::{Facts, Recorded, RuleConfig, Verdict};
use crate::spiffe::TrustDomain;

/// A rule that recorded calls would need.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Draft {
    /// The rule; its reason says what it was drawn from.
    pub rule: RuleConfig,
    /// What it was drawn from.
    pub seen: Evidence,
}

/// Calls that were seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// How many.
    pub calls: u64,
    /// How many of them were denied because no rule allowed them.
    pub denied: u64,
    /// How many of them passed on trial.
    pub would_deny: u64,
    /// The first, in seconds since the Unix epoch.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Evidence {
    fn add(&mut self, other: &Self) {
        self.first = if self.calls == 0 {
            other.first
        } else {
            self.first.min(other.first)
        };
        self.last = self.last.max(other.last);
        self.calls += other.calls;
        self.denied += other.denied;
        self.would_deny += other.would_deny;
    }

    fn reason(&self) -> String {
        let (first, last) = (date(self.first), date(self.last));
        let when = if first == last {
            format!("on {first}")
        } else {
            format!("from {first} to {last}")
        };
        let part = |count: u64, what: &str| match count {
            0 => String::new(),
            count => format!(", {count} of them {what}"),
        };
        format!(
            "{} call(s) seen {when}{}{}",
            self.calls,
            part(self.denied, "denied by default"),
            part(self.would_deny, "on trial")
        )
    }
}

/// Collects recorded decisions and drafts rules.
#[derive(Clone, Debug)]
pub struct Drafter {
    own: TrustDomain,
    calls: BTreeMap<Caller, BTreeMap<Request, Evidence>>,
    distinct: usize,
    /// Calls that were left out because there were too many different ones.
    left_out: u64,
    /// Calls that a deny rule refused.
    refused: u64,
    /// Calls of callers who proved nothing.
    unauthenticated: u64,
}

/// Who calls what, as one rule can name it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Caller {
    from: String,
    issuer: Option<String>,
    service: Box<str>,
    port: u16,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Request {
    method: Option<String>,
    path: String,
}

impl Drafter {
    /// Drafts for services of the trust domain `own`.
    pub fn new(own: &TrustDomain) -> Self {
        Self {
            own: own.clone(),
            calls: BTreeMap::new(),
            distinct: 0,
            left_out: 0,
            refused: 0,
            unauthenticated: 0,
        }
    }

    /// Takes a recorded decision into account.
    pub fn add(&mut self, recorded: &Recorded) {
        let is_denied = recorded.verdict == Verdict::Deny;
        if is_denied && recorded.rule.is_some() {
            self.refused += 1;
            return;
        }
        let Some(caller) = self.caller(&recorded.facts) else {
            self.unauthenticated += 1;
            return;
        };
        let request = Request::of(&recorded.facts);
        let is_known = self
            .calls
            .get(&caller)
            .is_some_and(|requests| requests.contains_key(&request));
        if !is_known {
            if self.distinct >= MAX_CALLS {
                self.left_out += 1;
                return;
            }
            self.distinct += 1;
        }
        let at = recorded.facts.at;
        let seen = Evidence {
            calls: 1,
            denied: u64::from(is_denied),
            would_deny: u64::from(recorded.would_deny),
            first: at,
            last: at,
        };
        let requests = self.calls.entry(caller).or_default();
        requests.entry(request).or_default().add(&seen);
    }

    /// Calls that were left out because more than [`MAX_CALLS`] different ones were seen.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Calls that a deny rule refused: no reason to allow anything.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Calls of callers who proved nothing.
    pub fn unauthenticated(&self) -> u64 {
        self.unauthenticated
    }

    /// The rules, in the order of callers, services, ports, methods and paths; always the same for the same calls.
    pub fn drafts(&self) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = self
            .calls
            .iter()
            .flat_map(|(caller, requests)| drafts_of(caller, requests))
            .collect();
        let mut taken: BTreeMap<String, u32> = BTreeMap::new();
        for draft in &mut drafts {
            let number = taken.entry(draft.rule.name.clone()).or_default();
            *number += 1;
            if *number > 1 {
                // A dot never stands in a name made here, so a number can't meet another name.
                draft.rule.name = format!("{}.{number}", draft.rule.name);
            }
        }
        drafts
    }

    fn caller(&self, facts: &Facts) -> Option<Caller> {
        let issuer = facts
            .user
            .as_ref()
            .map(|user| format!("issuer:{}", user.issuer));
        let (from, issuer) = match &facts.spiffe_id {
            Some(id) if *id.trust_domain() == self.own && is_plain(id.service()) => {
                (id.service().to_owned(), issuer)
            }
            Some(id) => (id.to_string(), issuer),
            None => (issuer?, None),
        };
        Some(Caller {
            from,
            issuer,
            service: facts.service.clone(),
            port: facts.port,
        })
    }
}

/// Whether a service's name can stand in a rule without its trust domain.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | super::source::ANONYMOUS)
}

impl Request {
    fn of(facts: &Facts) -> Self {
        match &facts.http {
            Some(http) => Self {
                method: Some(http.method.to_string()),
                path: http.path.to_string(),
            },
            None => Self {
                method: None,
                path: String::new(),
            },
        }
    }
}

/// The rules for one caller of one service.
fn drafts_of(caller: &Caller, requests: &BTreeMap<Request, Evidence>) -> Vec<Draft> {
    let mut by_method: BTreeMap<&Option<String>, BTreeMap<&str, &Evidence>> = BTreeMap::new();
    for (request, seen) in requests {
        let paths = by_method.entry(&request.method).or_default();
        paths.insert(&request.path, seen);
    }
    // Methods with the same paths share a rule.
    let mut by_paths: BTreeMap<BTreeSet<String>, (Vec<&str>, Evidence)> = BTreeMap::new();
    let mut drafts = Vec::new();
    for (method, paths) in by_method {
        let mut seen = Evidence::default();
        for more in paths.values() {
            seen.add(more);
        }
        let Some(method) = method else {
            drafts.push(draft(caller, (&[], BTreeSet::new()), seen));
            continue;
        };
        let patterns = fold::patterns(paths.keys().copied());
        let (methods, all) = by_paths.entry(patterns).or_default();
        methods.push(method);
        all.add(&seen);
    }
    let mut rules: Vec<_> = by_paths.into_iter().collect();
    rules.sort_by(|(_, (left, _)), (_, (right, _))| left.cmp(right));
    let rules = rules.into_iter();
    drafts.extend(rules.map(|(paths, (methods, seen))| draft(caller, (&methods, paths), seen)));
    drafts
}

fn draft(caller: &Caller, (methods, paths): (&[&str], BTreeSet<String>), seen: Evidence) -> Draft {
    let who = caller.from.rsplit('/').next().unwrap_or_default();
    let what = if methods.is_empty() {
        "connect".to_owned()
    } else {
        methods.join("-")
    };
    let name = slug(&format!("{who}-{what}-{}", caller.service));
    let mut rule = RuleConfig::new(&name, &[&caller.from], &caller.service)
        .with_methods(methods)
        .with_reason(&seen.reason());
    rule.users.extend(caller.issuer.clone());
    rule.to.paths = paths.into_iter().collect();
    if caller.port > 0 {
        rule.to.ports.push(caller.port);
    }
    Draft { rule, seen }
}

/// Most different calls that are kept, so that a record of any length fits in memory.
pub const MAX_CALLS: usize = 100_000;

#[cfg(test)]
mod tests;
