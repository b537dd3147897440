//! What is doubtful about a policy although it can be enforced: rules that match nobody, that others make superfluous,
//! that ask for what a service does not have, that are wide and for ever.
//!
//! What can't be enforced at all is an error of [`Policy::build`](super::Policy::build); such rules are passed over here.

mod cover;

use std::collections::BTreeMap;
use std::fmt;

use self::cover::covers;
use super::rule::Rule;
use super::source::{ANY, Source};
use super::time::DAY;
use super::{Action, PolicyConfig, Scope};
use crate::spiffe::TrustDomain;

/// What is known of where a policy holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Surroundings {
    /// The trust domain of the services.
    pub own: TrustDomain,
    /// Other trust domains whose certificates are accepted.
    pub federated: Vec<TrustDomain>,
    /// The services that there are, by name. Empty: not known, and nothing is said about services.
    pub services: BTreeMap<String, KnownService>,
    /// Whether credentials of users are accepted.
    pub has_credentials: bool,
    /// The time, in seconds since the Unix epoch.
    pub now: u64,
}

impl Surroundings {
    /// A mesh of one trust domain, of whose services nothing is known, without credentials.
    pub fn new(own: &TrustDomain, now: u64) -> Self {
        Self {
            own: own.clone(),
            federated: Vec::new(),
            services: BTreeMap::new(),
            has_credentials: false,
            now,
        }
    }

    /// Adds a trust domain whose certificates are accepted.
    #[must_use]
    pub fn with_federated(mut self, domain: &TrustDomain) -> Self {
        self.federated.push(domain.clone());
        self
    }

    /// Adds a service.
    #[must_use]
    pub fn with_service(mut self, name: &str, service: KnownService) -> Self {
        self.services.insert(name.to_owned(), service);
        self
    }

    /// Sets whether credentials of users are accepted.
    #[must_use]
    pub fn with_credentials(mut self, accepted: bool) -> Self {
        self.has_credentials = accepted;
        self
    }
}

/// What is known of a service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct KnownService {
    /// Its ports. Empty: not known.
    pub ports: Vec<u16>,
    /// Whether its connections are carried as they are, so that no method and no path is seen.
    pub is_tcp: bool,
}

impl KnownService {
    /// A service that speaks HTTP on these ports.
    pub fn http(ports: &[u16]) -> Self {
        Self {
            ports: ports.to_vec(),
            is_tcp: false,
        }
    }

    /// A service that is carried as TCP, on these ports.
    pub fn tcp(ports: &[u16]) -> Self {
        Self {
            ports: ports.to_vec(),
            is_tcp: true,
        }
    }
}

/// Something doubtful about a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// What kind of thing.
    pub kind: FindingKind,
    /// How bad it is.
    pub severity: Severity,
    /// The same as a sentence, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = self.severity.as_str();
        write!(f, "{severity}: rule {}: {}", self.rule, self.message)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Severity {
    /// Good to know.
    Note,
    /// Should be looked at.
    Warning,
    /// The rule does not do what it says.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum FindingKind {
    /// One of its callers, or all, can't exist.
    MatchesNobody,
    /// The called service is not known.
    UnknownService,
    /// Another rule of the same action covers it.
    Redundant,
    /// A deny rule covers it.
    Dead,
    /// It asks for what is never seen or never there.
    Unenforceable,
    /// It allows much, for ever.
    Wide,
    /// It has ended.
    Expired,
    /// It ends soon.
    Expiring,
    /// Nobody answers for it.
    NoOwner,
    /// There are too many rules to compare each with each.
    NotCompared,
}

impl FindingKind {
    /// The word for it, such as `matches_nobody`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MatchesNobody => "matches_nobody",
            Self::UnknownService => "unknown_service",
            Self::Redundant => "redundant",
            Self::Dead => "dead",
            Self::Unenforceable => "unenforceable",
            Self::Wide => "wide",
            Self::Expired => "expired",
            Self::Expiring => "expiring",
            Self::NoOwner => "no_owner",
            Self::NotCompared => "not_compared",
        }
    }
}

/// Looks through a policy. Findings come rule by rule, in the order of the rules; the worst of a rule first.
#[must_use]
pub fn lint(config: &PolicyConfig, surroundings: &Surroundings) -> Vec<Finding> {
    // What a rule about anonymous callers may be is a matter of the listener, which is not known here.
    let scope = Scope::new(&surroundings.own).with_permissive(true);
    let rules: Vec<Rule> = config
        .rules
        .iter()
        .filter_map(|rule| Rule::compile(rule, &scope).ok())
        .collect();
    let mut covered = Covered::of(&rules, surroundings.now);
    let mut all = Vec::new();
    for (position, rule) in rules.iter().enumerate() {
        let mut findings = Findings {
            rule,
            found: Vec::new(),
        };
        findings.about_callers(surroundings);
        findings.about_service(surroundings);
        findings.about_width(surroundings);
        findings.about_end(surroundings.now);
        if let Some(by) = covered.by(&rules, position) {
            findings.about_cover(by);
        }
        if rule.config.owner.is_none() {
            let message = "nobody answers for it; set its owner";
            findings.add(FindingKind::NoOwner, Severity::Note, message.to_owned());
        }
        findings
            .found
            .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        all.append(&mut findings.found);
    }
    if let (true, Some(rule)) = (covered.is_cut, rules.last()) {
        all.push(Finding {
            rule: rule.config.name.clone(),
            kind: FindingKind::NotCompared,
            severity: Severity::Note,
            message: format!(
                "there are too many rules to compare each with each: {MAX_COMPARED} pairs were looked at"
            ),
        });
    }
    all
}

/// What is found about one rule.
struct Findings<'a> {
    rule: &'a Rule,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, kind: FindingKind, severity: Severity, message: String) {
        self.found.push(Finding {
            rule: self.rule.config.name.clone(),
            kind,
            severity,
            message,
        });
    }

    fn about_callers(&mut self, surroundings: &Surroundings) {
        let sources = self.rule.sources.iter().zip(&self.rule.config.from);
        let nobody: Vec<String> = sources
            .filter_map(|(source, written)| {
                Some(format!("{written} {}", impossible(source, surroundings)?))
            })
            .collect();
        let severity = if nobody.len() == self.rule.sources.len() {
            Severity::Error
        } else {
            Severity::Warning
        };
        for why in nobody {
            let message = format!("no caller can match {why}");
            self.add(FindingKind::MatchesNobody, severity, message);
        }
        if !self.rule.users.is_empty() && !surroundings.has_credentials {
            let message = "no caller can match users: no credentials are configured".to_owned();
            self.add(FindingKind::MatchesNobody, Severity::Error, message);
        }
    }

    fn about_service(&mut self, surroundings: &Surroundings) {
        let to = &self.rule.config.to;
        if to.service == ANY || surroundings.services.is_empty() {
            return;
        }
        let Some(service) = surroundings.services.get(&to.service) else {
            let message = format!("there is no service {}", to.service);
            self.add(FindingKind::UnknownService, Severity::Error, message);
            return;
        };
        let when = self.rule.when();
        let reads_request = when.is_some_and(super::condition::When::reads_request);
        if service.is_tcp && (!to.methods.is_empty() || !to.paths.is_empty() || reads_request) {
            let (severity, effect) = match self.rule.config.action {
                Action::Allow => (Severity::Error, "it allows nothing"),
                _ => (Severity::Warning, "it is about every connection"),
            };
            let message = format!(
                "{} is carried as TCP, where no request is seen: {effect}; leave methods, paths and request out",
                to.service
            );
            self.add(FindingKind::Unenforceable, severity, message);
        }
        let missing = |port: &&u16| !service.ports.is_empty() && !service.ports.contains(port);
        let missing: Vec<u16> = to.ports.iter().filter(missing).copied().collect();
        let severity = if missing.len() == to.ports.len() {
            Severity::Error
        } else {
            Severity::Warning
        };
        for port in missing {
            let message = format!("{} has no port {port}", to.service);
            self.add(FindingKind::Unenforceable, severity, message);
        }
    }

    fn about_width(&mut self, surroundings: &Surroundings) {
        let config = &self.rule.config;
        if config.action != Action::Allow || config.expires.is_some() {
            return;
        }
        let service = surroundings.services.get(&config.to.service);
        let is_tcp = service.is_some_and(|service| service.is_tcp);
        let is_everybody = self.rule.sources.contains(&Source::Any) && config.users.is_empty();
        let is_everything = config.to.methods.is_empty() && config.to.paths.is_empty();
        for (is_wide, severity, what) in [
            (is_everybody, Severity::Warning, "every caller"),
            (
                config.to.service == ANY,
                Severity::Warning,
                "calls of every service",
            ),
            (
                is_everything && !is_tcp,
                Severity::Note,
                "every method and path",
            ),
        ] {
            if is_wide {
                let message = format!("it allows {what}, for ever; narrow it or set expires");
                self.add(FindingKind::Wide, severity, message);
            }
        }
    }

    fn about_end(&mut self, now: u64) {
        let Some(end) = self.rule.end else {
            return;
        };
        let written = self.rule.config.expires.as_deref().unwrap_or_default();
        let opens = match self.rule.config.action {
            Action::Deny => ", which opens what it closes",
            _ => "",
        };
        if now >= end {
            let message = format!("it ended {written}{opens}; remove it or set another end");
            self.add(FindingKind::Expired, Severity::Warning, message);
        } else if end - now <= SOON_DAYS * DAY {
            let message = format!("it ends {written}{opens}");
            self.add(FindingKind::Expiring, Severity::Warning, message);
        }
    }

    fn about_cover(&mut self, by: &Rule) {
        let name = &by.config.name;
        if by.config.action == self.rule.config.action {
            let message = format!("the rule {name} covers it: without it nothing would change");
            self.add(FindingKind::Redundant, Severity::Warning, message);
        } else {
            let message = format!("the rule {name} denies all that it is about: it does nothing");
            self.add(FindingKind::Dead, Severity::Error, message);
        }
    }
}

/// Why a source matches nobody, if it does.
fn impossible(source: &Source, surroundings: &Surroundings) -> Option<String> {
    let elsewhere = |domain: &TrustDomain| {
        let is_trusted = *domain == surroundings.own || surroundings.federated.contains(domain);
        (!is_trusted).then(|| format!("(the trust domain {domain} is neither ours nor federated)"))
    };
    match source {
        Source::Any | Source::Anonymous => None,
        Source::Domain(domain) => elsewhere(domain),
        Source::Below(prefix) => {
            let domain = prefix.strip_prefix("spiffe://")?.split('/').next()?;
            elsewhere(&TrustDomain::parse(domain).ok()?)
        }
        Source::Id(id) => elsewhere(id.trust_domain()).or_else(|| {
            let is_unknown = *id.trust_domain() == surroundings.own
                && !surroundings.services.is_empty()
                && !surroundings.services.contains_key(id.service());
            is_unknown.then(|| "(there is no such service)".to_owned())
        }),
        Source::User(_) => {
            (!surroundings.has_credentials).then(|| "(no credentials are configured)".to_owned())
        }
    }
}

/// Compares rules with each other, up to a number of pairs.
struct Covered<'a> {
    /// Rules that deny first, as what they cover is worse than superfluous; those that have ended cover nothing.
    by_service: BTreeMap<&'a str, Vec<usize>>,
    compared: usize,
    is_cut: bool,
}

impl<'a> Covered<'a> {
    fn of(rules: &'a [Rule], now: u64) -> Self {
        let mut by_service: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for denies in [true, false] {
            for (position, rule) in rules.iter().enumerate() {
                if (rule.config.action == Action::Deny) == denies && !rule.has_ended(now) {
                    let service = rule.config.to.service.as_str();
                    by_service.entry(service).or_default().push(position);
                }
            }
        }
        Self {
            by_service,
            compared: 0,
            is_cut: false,
        }
    }

    /// A rule that covers another one and makes it superfluous.
    fn by<'r>(&mut self, rules: &'r [Rule], position: usize) -> Option<&'r Rule> {
        let rule = rules.get(position)?;
        let service = rule.config.to.service.as_str();
        let named = self.by_service.get(service).into_iter().flatten();
        let every = (service != ANY).then(|| self.by_service.get(ANY));
        for &other in named.chain(every.flatten().into_iter().flatten()) {
            if self.compared == MAX_COMPARED {
                self.is_cut = true;
                return None;
            }
            self.compared += 1;
            let by = rules.get(other)?;
            let is_same = by.config.action == rule.config.action;
            if other == position
                || !(is_same || by.config.action == Action::Deny)
                || !covers(by, rule)
            {
                continue;
            }
            // Of two rules that are the same, the first is not superfluous.
            if !(is_same && other > position && covers(rule, by)) {
                return Some(by);
            }
        }
        None
    }
}

/// How long before its end a rule is reported.
const SOON_DAYS: u64 = 14;
/// Most pairs of rules that are compared: some seconds.
const MAX_COMPARED: usize = 20_000_000;

#[cfg(test)]
mod tests;
