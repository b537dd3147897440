//! Who may call what: deny by default, deny wins, and every decision can say why.
//!
//! A request passes when at least one allow rule matches it and no deny rule does. Audit rules are
//! deny rules on trial: they refuse nothing, but the decision names the one that would have.
//! Matchers are literal (exact, prefix, suffix, template), never regular expressions, so a dot in a
//! rule is a dot. Rules that can't match anything are refused when the policy is built.
//!
//! Who calls is a [`Caller`]: a workload by its certificate, a user by a credential. A user's subject never counts as a
//! SPIFFE id, whatever it looks like.
//!
//! A rule may end in a condition ([`condition`]), which is evaluated last and only where all else matches.
//!
//! Rules are indexed by every part of a call (module `index`), so that the cost of a decision does not depend on how the rules
//! are made. A decision without conditions allocates nothing, but where a path with escapes is longer than 1024 bytes;
//! [`Policy::explain`] takes the same decision and adds the sentences.

mod change;
pub mod condition;
mod config;
mod diff;
mod expect;
mod explain;
mod facts;
mod index;
mod intentions;
mod lint;
mod needs;
mod path;
mod recorded;
mod rule;
mod source;
mod suggest;
mod time;
mod yaml;

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use http::{HeaderMap, Method};
use thiserror::Error;

pub use self::change::{Change, Edit, List, MAX_EDITS, NoChange, RuleEdit};
pub use self::condition::{
    ConditionError, MAX_CHOICES, MAX_CONDITION_BYTES, MAX_ELEMENTS, MAX_WORK,
};
pub use self::config::{Action, DefaultAction, DestinationConfig, PolicyConfig, RuleConfig};
pub use self::diff::{Compared, Diff, Difference, compare, diff};
pub use self::expect::{Expectation, Surprise};
pub use self::explain::{
    Condition, Explanation, Failed, MATCHING_STEPS, NEAR_STEPS, Nearest, Step,
};
pub use self::facts::{
    Facts, FactsError, HttpFacts, MAX_FIELD_BYTES, Needs, Replayed, UserFacts, claim_of_text,
};
pub use self::intentions::{
    IntentionAction, IntentionConfig, IntentionError, IntentionHeader, IntentionPermission,
    MAX_INTENTIONS, MAX_PERMISSIONS,
};
pub use self::lint::{Finding, FindingKind, KnownService, Severity, Surroundings, lint};
pub use self::path::PathMatcher;
pub use self::recorded::Recorded;
pub use self::suggest::{Draft, Drafter, Evidence, MAX_CALLS};

use self::condition::Environment;
use self::index::Index;
use self::intentions::Intentions;
use self::path::MAX_SEGMENTS;
use self::rule::Rule;
use crate::caller::Caller;
use crate::request::{CanonicalRequest, RequestError, decoded};
use crate::spiffe::{SpiffeIdError, TrustDomain};

/// Most rules of a policy.
pub const MAX_RULES: usize = 10_000;

/// Most rules of a policy that have a condition: all of them may have to be evaluated for one call.
pub const MAX_CONDITIONS: usize = 1_000;

/// The name under which decisions report the policy's default; no rule may have it.
pub const DEFAULT_RULE: &str = "default";

/// Where a policy is to hold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scope {
    own: TrustDomain,
    permissive: bool,
    conditions: Environment,
}

impl Scope {
    /// Services of the trust domain `own`.
    pub fn new(own: &TrustDomain) -> Self {
        Self {
            own: own.clone(),
            permissive: false,
            conditions: Environment::default(),
        }
    }

    /// Sets whether rules about `anonymous` callers may be of any kind: for the listener that takes plain connections
    /// while a mesh is introduced. Default false: such rules only allow methods and exact paths that they list.
    #[must_use]
    pub fn with_permissive(mut self, permissive: bool) -> Self {
        self.permissive = permissive;
        self
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a third verdict would have to be handled everywhere"
)]
pub enum Verdict {
    /// The request may pass.
    Allow,
    /// The request must not pass.
    Deny,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A decision.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// Whether the request may pass.
    pub verdict: Verdict,
    /// What decided: the first deny rule that matches, else an intention that denies (`intention:SOURCE=>DESTINATION`),
    /// else the first allow rule, else an intention that allows. None where the default decided.
    pub rule: Option<Arc<str>>,
    /// For a request that may pass: the audit rule that would have refused it, or [`DEFAULT_RULE`]
    /// where only [`DefaultAction::Audit`] lets it pass.
    pub would_deny: Option<Arc<str>>,
}

impl Decision {
    /// Whether the request may pass.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// A compiled policy: immutable, shared between threads, replaced whole.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    intentions: Intentions,
    index: Index,
    default: DefaultAction,
    default_name: Arc<str>,
    needs: Needs,
    /// Where it holds, for rules that explanations suggest.
    scope: Scope,
}

impl Policy {
    /// Compiles a policy for services of the trust domain `own`.
    ///
    /// # Errors
    /// When a rule can't be enforced or can't match anything; the error names the rule and says
    /// what to write instead.
    pub fn build(config: &PolicyConfig, own: &TrustDomain) -> Result<Self, PolicyError> {
        Self::build_in(config, &Scope::new(own))
    }

    /// As [`Self::build`], for where `scope` says.
    ///
    /// # Errors
    /// As for [`Self::build`].
    pub fn build_in(config: &PolicyConfig, scope: &Scope) -> Result<Self, PolicyError> {
        if config.intentions.len() > MAX_INTENTIONS {
            return Err(PolicyError::TooManyIntentions {
                intentions: config.intentions.len(),
            });
        }
        if config.rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules {
                rules: config.rules.len(),
            });
        }
        let conditions = config.rules.iter().filter(|rule| rule.when.is_some());
        let conditions = conditions.count();
        if conditions > MAX_CONDITIONS {
            return Err(PolicyError::TooManyConditions { conditions });
        }
        let mut names = HashSet::new();
        let mut rules = Vec::with_capacity(config.rules.len());
        for rule in &config.rules {
            if !names.insert(rule.name.as_str()) {
                return Err(PolicyError::DuplicateName {
                    rule: rule.name.clone(),
                });
            }
            rules.push(Rule::compile(rule, scope)?);
        }
        let index = Index::of(&rules);
        let intentions = Intentions::compile(&config.intentions, &scope.own)
            .map_err(|(intention, source)| PolicyError::Intention { intention, source })?;
        let needs = needs::of(&rules, &intentions);
        Ok(Self {
            rules,
            intentions,
            index,
            default: config.default,
            default_name: DEFAULT_RULE.into(),
            needs,
            scope: scope.clone(),
        })
    }

    /// Decides about a call.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        self.decision(&self.evaluate(&Call::new(query)))
    }

    /// Takes the decision of [`Self::decide`] and says why.
    pub fn explain(&self, query: &Query<'_>) -> Explanation {
        explain::explanation(self, &Call::new(query))
    }

    /// What the rules read beside what every record holds.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The names of the rules that have ended by `now`, in seconds since the Unix epoch.
    pub fn expired(&self, now: u64) -> impl Iterator<Item = &str> {
        self.rules
            .iter()
            .filter(move |rule| rule.has_ended(now))
            .map(|rule| &*rule.name)
    }

    /// The names of all rules; decisions carry them.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().map(|rule| &rule.name)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule and no intention, so that the default decides about everything.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.intentions.is_empty()
    }

    /// The one place where verdicts are made.
    fn evaluate(&self, call: &Call<'_>) -> Outcome {
        let found = self.index.first_matches(&self.rules, call);
        let intention = self.intentions.decide(call, &self.scope.own);
        let audit = found.audit.map(WouldDeny::Rule);
        let by_rule = |verdict, rule, would_deny| Outcome {
            verdict,
            rule: Some(rule),
            intention: None,
            would_deny,
        };
        let without_rule = |verdict, intention, would_deny| Outcome {
            verdict,
            rule: None,
            intention,
            would_deny,
        };
        match (found.deny, found.allow, intention) {
            (Some(rule), _, _) => by_rule(Verdict::Deny, rule, None),
            (_, _, Some((position, IntentionAction::Deny))) => {
                without_rule(Verdict::Deny, Some(position), None)
            }
            (_, Some(rule), _) => by_rule(Verdict::Allow, rule, audit),
            (_, _, Some((position, IntentionAction::Allow))) => {
                without_rule(Verdict::Allow, Some(position), audit)
            }
            _ if self.default == DefaultAction::Audit && call.caller.is_authenticated() => {
                without_rule(Verdict::Allow, None, Some(WouldDeny::Default))
            }
            _ => without_rule(Verdict::Deny, None, None),
        }
    }

    fn decision(&self, outcome: &Outcome) -> Decision {
        let would_deny = outcome.would_deny.and_then(|would_deny| match would_deny {
            WouldDeny::Rule(rule) => self.name_of(rule),
            WouldDeny::Default => Some(Arc::clone(&self.default_name)),
        });
        Decision {
            verdict: outcome.verdict,
            rule: match (outcome.rule, outcome.intention) {
                (Some(rule), _) => self.name_of(rule),
                (None, Some(intention)) => self.intentions.name(intention),
                (None, None) => None,
            },
            would_deny,
        }
    }

    fn name_of(&self, rule: usize) -> Option<Arc<str>> {
        self.rules.get(rule).map(|rule| Arc::clone(&rule.name))
    }
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Policy>();
};

struct Outcome {
    verdict: Verdict,
    /// The rule that decided.
    rule: Option<usize>,
    /// The intention that decided.
    intention: Option<usize>,
    would_deny: Option<WouldDeny>,
}

#[derive(Clone, Copy)]
enum WouldDeny {
    Rule(usize),
    Default,
}

/// What is decided about: one request, or one connection that is not HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    caller: &'a Caller,
    service: &'a str,
    port: u16,
    request: Option<&'a CanonicalRequest>,
    now: u64,
}

impl<'a> Query<'a> {
    /// A connection of `caller` to `service` at `now`, in seconds since the Unix epoch, that is not HTTP.
    ///
    /// Allow rules that ask for a method or path do not match it; deny and audit rules match whatever method or path they
    /// name.
    pub fn new(caller: &'a Caller, service: &'a str, now: u64) -> Self {
        Self {
            caller,
            service,
            port: 0,
            request: None,
            now,
        }
    }

    /// Sets the port of the called service. Default 0, which no rule names.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the request.
    #[must_use]
    pub fn with_request(mut self, request: &'a CanonicalRequest) -> Self {
        self.request = Some(request);
        self
    }
}

/// A query, prepared for matching.
struct Call<'a> {
    caller: &'a Caller,
    service: &'a str,
    port: u16,
    http: Option<HttpCall<'a>>,
    now: u64,
}

struct HttpCall<'a> {
    method: &'a Method,
    path: &'a str,
    /// The path with its escapes undone.
    plain_path: PlainPath<'a>,
    host: &'a str,
    headers: &'a HeaderMap,
}

impl<'a> Call<'a> {
    fn new(query: &Query<'a>) -> Self {
        let http = query.request.map(|request| HttpCall {
            method: request.method(),
            path: request.path(),
            plain_path: PlainPath::of(request.path()),
            host: request.host(),
            headers: request.headers(),
        });
        Self {
            caller: query.caller,
            service: query.service,
            port: query.port,
            http,
            now: query.now,
        }
    }
}

/// A canonical path with its escapes undone: one without escapes as it is, a short one on the stack.
#[expect(
    clippy::large_enum_variant,
    reason = "it stands on the stack, so that nothing is allocated"
)]
enum PlainPath<'a> {
    AsIs(&'a str),
    Short([u8; SHORT_PATH_BYTES], usize),
    Long(Vec<u8>),
}

impl<'a> PlainPath<'a> {
    fn of(path: &'a str) -> Self {
        if !path.contains('%') {
            return Self::AsIs(path);
        }
        if path.len() > SHORT_PATH_BYTES {
            return Self::Long(decoded(path).collect());
        }
        let mut bytes = [0; SHORT_PATH_BYTES];
        let mut len = 0;
        for (to, from) in bytes.iter_mut().zip(decoded(path)) {
            *to = from;
            len += 1;
        }
        Self::Short(bytes, len)
    }
}

impl Deref for PlainPath<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::AsIs(path) => path.as_bytes(),
            Self::Short(bytes, len) => bytes.get(..*len).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

/// Longest path with escapes that is read without allocating.
const SHORT_PATH_BYTES: usize = 1024;

/// Why a policy was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// There are too many rules.
    #[error("{rules} rules are more than the limit of {MAX_RULES}")]
    TooManyRules {
        /// Number of rules.
        rules: usize,
    },
    /// A rule has no name, one that is too long or has control characters, or a reserved one.
    #[error(
        "a rule is named {rule:?}; a name has 1 to 128 printable characters and is not \"{DEFAULT_RULE}\""
    )]
    Name {
        /// The name.
        rule: String,
    },
    /// Two rules have the same name.
    #[error("two rules are named {rule}; decisions could not be told apart")]
    DuplicateName {
        /// The name.
        rule: String,
    },
    /// A rule has no source, so it can match nobody.
    #[error("rule {rule} has no from; name callers, or \"*\" for every authenticated one")]
    NoSource {
        /// The rule.
        rule: String,
    },
    /// A source is none of the accepted forms.
    #[error(
        "rule {rule}: no caller can match {from:?}; write a service, a spiffe id, spiffe://domain/path/*, group:name, role:name, claim:name=value, issuer:name, \"*\" or anonymous"
    )]
    Source {
        /// The rule.
        rule: String,
        /// The source as written.
        from: String,
        /// What is wrong with it as a SPIFFE id, where it is meant as one.
        source: Option<SpiffeIdError>,
    },
    /// One of `users` is none of the accepted forms.
    #[error(
        "rule {rule}: no credential can match {user:?}; write group:name, role:name, claim:name=value, issuer:name, subject:name or \"*\""
    )]
    User {
        /// The rule.
        rule: String,
        /// The matcher as written.
        user: String,
    },
    /// A rule about anonymous callers is wider than methods and exact paths that it allows by name.
    #[error(
        "rule {rule}: anonymous callers get only what a rule allows by name; list its methods and exact paths"
    )]
    Anonymous {
        /// The rule.
        rule: String,
    },
    /// A rule asks anonymous callers for a credential.
    #[error("rule {rule}: whoever is anonymous has no credential; remove anonymous or users")]
    AnonymousUser {
        /// The rule.
        rule: String,
    },
    /// A condition can't be evaluated, or its evaluation has no bound.
    #[error("rule {rule}: can't read its condition (when)")]
    When {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        source: ConditionError,
    },
    /// There are too many rules with a condition.
    #[error("{conditions} rules with a condition are more than the limit of {MAX_CONDITIONS}")]
    TooManyConditions {
        /// Number of rules with a condition.
        conditions: usize,
    },
    /// An intention can't be enforced.
    #[error("{intention} can't be enforced")]
    Intention {
        /// The intention, as decisions name it.
        intention: String,
        /// What is wrong with it.
        source: IntentionError,
    },
    /// There are too many intentions.
    #[error("{intentions} intentions are more than the limit of {MAX_INTENTIONS}")]
    TooManyIntentions {
        /// How many.
        intentions: usize,
    },
    /// The called service is not a service's name.
    #[error(
        "rule {rule}: {service:?} is not a service; write its name, or \"*\" alone for every service"
    )]
    Service {
        /// The rule.
        rule: String,
        /// The service as written.
        service: String,
    },
    /// A method is not one that a request can have.
    #[error(
        "rule {rule}: no request has the method {method:?}; methods are written in upper case, such as GET"
    )]
    Method {
        /// The rule.
        rule: String,
        /// The method as written.
        method: String,
    },
    /// No request can match a path pattern.
    #[error("rule {rule}: no request can match the path {path:?}")]
    Path {
        /// The rule.
        rule: String,
        /// The pattern as written.
        path: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// A port is 0.
    #[error("rule {rule}: port 0 can't be called")]
    Port {
        /// The rule.
        rule: String,
    },
    /// The end of a rule is not a date or a time.
    #[error(
        "rule {rule}: can't read expires {expires:?}; write 2027-03-31 or 2027-03-31T18:00:00Z"
    )]
    Expires {
        /// The rule.
        rule: String,
        /// The end as written.
        expires: String,
    },
}

/// What is wrong with a path pattern.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PathError {
    /// The pattern does not start with a slash or a star.
    #[error("a path starts with / (or with * to match its end)")]
    NoSlash,
    /// The pattern is `*`.
    #[error("leave paths out to match every path")]
    Everything,
    /// The pattern ends in `*` within a segment.
    #[error("a prefix ends at a slash, as in /api/*")]
    PartialSegment,
    /// The pattern has a star in its middle.
    #[error("a * stands at the end, behind a slash, or at the start; use {{name}} for one segment")]
    Wildcard,
    /// The pattern has too many segments.
    #[error("a path has at most {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// A placeholder is not a whole segment or has no name.
    #[error("a placeholder is a whole segment with a name, as in /users/{{id}}")]
    Placeholder,
    /// The pattern has a query or fragment.
    #[error("a path has no query and no fragment")]
    Query,
    /// Requests with this path arrive under another one.
    #[error("a request for it arrives as {canonical}")]
    NotCanonical {
        /// The path that such requests have.
        canonical: String,
    },
    /// Requests with this path are refused before any rule is asked.
    #[error("a request for it is refused before any rule is asked")]
    NeverMatches(#[source] RequestError),
}

#[cfg(test)]
mod tests;
