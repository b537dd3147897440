//! One rule, compiled.

use std::sync::Arc;

use http::Method;

use super::path::PathPattern;
use super::time::parse_end;
use super::{Action, Call, Condition, DEFAULT_RULE, HttpCall, PolicyError, RuleConfig};
use crate::caller::Caller;
use crate::spiffe::{SpiffeId, TrustDomain};

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    /// As written, for explanations.
    pub(super) config: RuleConfig,
    pub(super) sources: Vec<Source>,
    methods: Vec<Method>,
    paths: Vec<PathPattern>,
    /// The first second in which the rule does not count any more.
    end: Option<u64>,
}

impl Rule {
    pub(super) fn compile(config: &RuleConfig, own: &TrustDomain) -> Result<Self, PolicyError> {
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
        let source = |from: &String| Source::parse(from, own, &config.name);
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
        Ok(Self {
            name: config.name.as_str().into(),
            sources: config.from.iter().map(source).collect::<Result<_, _>>()?,
            methods: config
                .to
                .methods
                .iter()
                .map(method)
                .collect::<Result<_, _>>()?,
            paths: config.to.paths.iter().map(path).collect::<Result<_, _>>()?,
            end: config.expires.as_ref().map(end).transpose()?,
            config: config.clone(),
        })
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
        self.first_failure_beside_names(call)
    }

    /// As [`Self::first_failure`], for a rule that the index gave: service and source match.
    pub(super) fn first_failure_beside_names(&self, call: &Call<'_>) -> Option<Condition> {
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

/// Who a rule is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Source {
    Any,
    Id(SpiffeId),
    /// Every id that starts with this text, which ends in a slash.
    Below(Box<str>),
    Domain(TrustDomain),
    Group(Box<str>),
}

impl Source {
    fn parse(text: &str, own: &TrustDomain, rule: &str) -> Result<Self, PolicyError> {
        let refused = |source| PolicyError::Source {
            rule: rule.to_owned(),
            from: text.to_owned(),
            source,
        };
        if text == ANY {
            return Ok(Self::Any);
        }
        if let Some(group) = text.strip_prefix("group:") {
            let is_group =
                !group.is_empty() && !group.contains(|c: char| c == '*' || c.is_control());
            return if is_group {
                Ok(Self::Group(group.into()))
            } else {
                Err(refused(None))
            };
        }
        if !text.starts_with("spiffe://") {
            return SpiffeId::for_service(own, text)
                .map(Self::Id)
                .map_err(|error| refused(Some(error)));
        }
        let (id, is_below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        let id = SpiffeId::parse(id).map_err(|error| refused(Some(error)))?;
        if id.path().is_empty() {
            return Ok(Self::Domain(id.trust_domain().clone()));
        }
        Ok(if is_below {
            Self::Below(format!("{id}/").into())
        } else {
            Self::Id(id)
        })
    }

    fn matches(&self, caller: &Caller) -> bool {
        let id = caller.spiffe_id.as_ref();
        match self {
            Self::Any => caller.is_authenticated(),
            Self::Id(own) => id == Some(own),
            Self::Below(prefix) => id.is_some_and(|id| id.as_str().starts_with(&**prefix)),
            Self::Domain(domain) => id.is_some_and(|id| id.trust_domain() == domain),
            Self::Group(group) => caller
                .user
                .as_ref()
                .is_some_and(|user| user.has_group(group)),
        }
    }
}

/// Methods are case-sensitive (RFC 9110 section 9.1), and a rule for `get` would never match.
fn parse_method(text: &str) -> Option<Method> {
    let method = Method::from_bytes(text.as_bytes()).ok()?;
    let is_usual = !text.bytes().any(|b| b.is_ascii_lowercase()) && method != Method::CONNECT;
    is_usual.then_some(method)
}

/// Every caller, every service.
pub(super) const ANY: &str = "*";
const MAX_NAME_BYTES: usize = 128;
