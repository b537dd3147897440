//! One rule, compiled.

use std::sync::Arc;

use http::Method;

use super::condition::When;
use super::path::PathPattern;
use super::source::{ANY, Source, UserMatch};
use super::time::parse_end;
use super::{Action, Call, Condition, DEFAULT_RULE, HttpCall, PolicyError, RuleConfig, Scope};
use crate::spiffe::SpiffeId;

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    /// As written, for explanations.
    pub(super) config: RuleConfig,
    pub(super) sources: Vec<Source>,
    pub(super) users: Vec<UserMatch>,
    pub(super) methods: Vec<Method>,
    pub(super) paths: Vec<PathPattern>,
    /// The first second in which the rule does not count any more.
    pub(super) end: Option<u64>,
    when: Option<When>,
}

impl Rule {
    pub(super) fn compile(config: &RuleConfig, scope: &Scope) -> Result<Self, PolicyError> {
        let own = &scope.own;
        let rule = || config.name.clone();
        let is_name = (1..=MAX_NAME_BYTES).contains(&config.name.len())
            && !config.name.contains(char::is_control);
        if !is_name || config.name == DEFAULT_RULE {
            return Err(PolicyError::Name { rule: rule() });
        }
        if config.from.is_empty() {
            return Err(PolicyError::NoSource { rule: rule() });
        }
        let service = &config.to.service;
        if service != ANY && SpiffeId::for_service(own, service).is_err() {
            return Err(PolicyError::Service {
                rule: rule(),
                service: service.clone(),
            });
        }
        if config.to.ports.contains(&0) {
            return Err(PolicyError::Port { rule: rule() });
        }
        let source = |from: &String| {
            Source::parse(from, own).map_err(|source| PolicyError::Source {
                rule: rule(),
                from: from.clone(),
                source,
            })
        };
        let user = |user: &String| {
            UserMatch::parse(user).ok_or_else(|| PolicyError::User {
                rule: rule(),
                user: user.clone(),
            })
        };
        let method = |method: &String| {
            parse_method(method).ok_or_else(|| PolicyError::Method {
                rule: rule(),
                method: method.clone(),
            })
        };
        let path = |path: &String| {
            PathPattern::parse(path).map_err(|source| PolicyError::Path {
                rule: rule(),
                path: path.clone(),
                source,
            })
        };
        let end = |text: &String| {
            parse_end(text).ok_or_else(|| PolicyError::Expires {
                rule: rule(),
                expires: text.clone(),
            })
        };
        let when = |text: &String| {
            When::compile(text, &scope.own, &scope.conditions).map_err(|source| PolicyError::When {
                rule: rule(),
                source,
            })
        };
        let compiled = Self {
            name: config.name.as_str().into(),
            sources: config.from.iter().map(source).collect::<Result<_, _>>()?,
            users: config.users.iter().map(user).collect::<Result<_, _>>()?,
            methods: config
                .to
                .methods
                .iter()
                .map(method)
                .collect::<Result<_, _>>()?,
            paths: config.to.paths.iter().map(path).collect::<Result<_, _>>()?,
            end: config.expires.as_ref().map(end).transpose()?,
            when: config.when.as_ref().map(when).transpose()?,
            config: config.clone(),
        };
        compiled.check_anonymous(scope)?;
        Ok(compiled)
    }

    /// Whoever shows neither certificate nor credential gets what is listed by name, and nothing more.
    fn check_anonymous(&self, scope: &Scope) -> Result<(), PolicyError> {
        if !self.sources.contains(&Source::Anonymous) {
            return Ok(());
        }
        let rule = || self.config.name.clone();
        if !self.users.is_empty() {
            return Err(PolicyError::AnonymousUser { rule: rule() });
        }
        let is_listed = self.config.action == Action::Allow
            && !self.methods.is_empty()
            && !self.paths.is_empty()
            && self.paths.iter().all(PathPattern::is_exact);
        if is_listed || scope.permissive {
            Ok(())
        } else {
            Err(PolicyError::Anonymous { rule: rule() })
        }
    }

    /// The first condition that a call to the rule's service does not meet, in the order in which an
    /// operator would look.
    pub(super) fn first_failure(&self, call: &Call<'_>) -> Option<Condition> {
        if !self
            .sources
            .iter()
            .any(|source| source.matches(call.caller))
        {
            return Some(Condition::Source);
        }
        if !self.users.is_empty() && !self.users.iter().any(|user| user.matches(call.caller)) {
            return Some(Condition::User);
        }
        self.first_failure_of_target(call)
            .or_else(|| (!self.condition_holds(call)).then_some(Condition::When))
    }

    /// As [`Self::first_failure`], of all that does not depend on credentials and headers.
    pub(super) fn first_failure_of_target(&self, call: &Call<'_>) -> Option<Condition> {
        if !self.config.to.ports.is_empty() && !self.config.to.ports.contains(&call.port) {
            return Some(Condition::Port);
        }
        let refuses = self.config.action != Action::Allow;
        match &call.http {
            Some(http) => {
                if !self.methods.is_empty() && !self.methods.contains(http.method) {
                    return Some(Condition::Method);
                }
                if !self.paths.is_empty() && !self.covers_path(http, refuses) {
                    return Some(Condition::Path);
                }
            }
            // What has no method and no path: a rule that refuses some of them refuses it.
            None if refuses => {}
            None if !self.methods.is_empty() => return Some(Condition::Method),
            None if !self.paths.is_empty() => return Some(Condition::Path),
            None => {}
        }
        self.has_ended(call.now).then_some(Condition::Expired)
    }

    /// Whether the rule has no condition, or one that holds; of what else it asks nothing is looked at.
    pub(super) fn condition_holds(&self, call: &Call<'_>) -> bool {
        let refuses = self.config.action != Action::Allow;
        self.when
            .as_ref()
            .is_none_or(|when| when.matches(call, refuses))
    }

    pub(super) fn when(&self) -> Option<&When> {
        self.when.as_ref()
    }

    pub(super) fn has_ended(&self, now: u64) -> bool {
        self.end.is_some_and(|end| now >= end)
    }

    pub(super) fn covers_service(&self, service: &str) -> bool {
        self.config.to.service == ANY || self.config.to.service == service
    }

    fn covers_path(&self, http: &HttpCall<'_>, folded: bool) -> bool {
        self.paths
            .iter()
            .any(|pattern| pattern.matches(&http.plain_path, folded))
    }
}

/// Methods are case-sensitive (RFC 9110 section 9.1), and a rule for `get` would never match.
pub(super) fn parse_method(text: &str) -> Option<Method> {
    let method = Method::from_bytes(text.as_bytes()).ok()?;
    let is_usual = !text.bytes().any(|b| b.is_ascii_lowercase()) && method != Method::CONNECT;
    is_usual.then_some(method)
}

const MAX_NAME_BYTES: usize = 128;
