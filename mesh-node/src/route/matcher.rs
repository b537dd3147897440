//! Whether one route matches a call, and what of it does not hold.

use std::fmt;

use http::Method;
use mesh_auth::policy::PathMatcher;

use super::field::HeaderRule;
use super::field::QueryRule;
use super::regex::Regex;
use super::table::Seen;

/// What a call must be.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    /// Any, where there is none; so it is with methods.
    pub(super) services: Box<[Box<str>]>,
    pub(super) methods: Box<[Method]>,
    pub(super) path: Option<PathRule>,
    pub(super) headers: Box<[HeaderRule]>,
    pub(super) query: Box<[QueryRule]>,
}

/// What the path must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum PathRule {
    Pattern {
        text: Box<str>,
        pattern: PathMatcher,
    },
    Regex(Regex),
}

impl Matcher {
    /// The first thing that does not hold; none where the route matches.
    pub(super) fn mismatch(&self, seen: &Seen<'_>) -> Option<Mismatch<'_>> {
        let asked = seen.asked;
        if let Some(mismatch) = self.mismatch_at(seen) {
            return Some(mismatch);
        }
        let mut headers = self.headers.iter();
        if let Some(rule) = headers.find(|rule| !rule.holds(asked.headers)) {
            return Some(Mismatch(Part::Header(rule)));
        }
        let rule = self.query.iter().find(|rule| !rule.holds(asked.query))?;
        Some(Mismatch(Part::Query(rule)))
    }

    /// Whether service, method and path are as they must be.
    pub(super) fn is_at(&self, seen: &Seen<'_>) -> bool {
        self.mismatch_at(seen).is_none()
    }

    fn mismatch_at(&self, seen: &Seen<'_>) -> Option<Mismatch<'_>> {
        let asked = seen.asked;
        if !is_among(&self.services, |service| **service == *asked.service) {
            return Some(Mismatch(Part::Service(&self.services)));
        }
        if !is_among(&self.methods, |method| method == asked.method) {
            return Some(Mismatch(Part::Method(&self.methods)));
        }
        let path = self.path.as_ref()?;
        let holds = match path {
            PathRule::Pattern { pattern, .. } => pattern.matches(seen.path()),
            PathRule::Regex(regex) => regex.is_in(asked.path.as_bytes()),
        };
        (!holds).then_some(Mismatch(Part::Path(path)))
    }
}

/// An empty list is open.
fn is_among<T>(list: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(is_it)
}

/// What of a route does not hold for a call; its `Display` is a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Mismatch<'a>(Part<'a>);

#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Service(&'a [Box<str>]),
    Method(&'a [Method]),
    Path(&'a PathRule),
    Header(&'a HeaderRule),
    Query(&'a QueryRule),
}

impl Mismatch<'_> {
    /// The part of the call: `service`, `method`, `path`, `header` or `query`.
    pub fn part(&self) -> &'static str {
        match self.0 {
            Part::Service(_) => "service",
            Part::Method(_) => "method",
            Part::Path(_) => "path",
            Part::Header(_) => "header",
            Part::Query(_) => "query",
        }
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Part::Service(services) => write!(f, "it is about {}", services.join(", ")),
            Part::Method(methods) => {
                let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
                write!(f, "it is about the methods {}", names.join(", "))
            }
            Part::Path(PathRule::Pattern { text, .. }) => {
                write!(f, "it is about the path {text}")
            }
            Part::Path(PathRule::Regex(regex)) => {
                let text = regex.text();
                write!(f, "it is about paths that contain a match of {text:?}")
            }
            Part::Header(HeaderRule { name, rule }) => {
                write!(f, "it is about calls whose header {name} {rule}")
            }
            Part::Query(QueryRule { name, rule }) => {
                write!(f, "it is about calls whose query parameter {name} {rule}")
            }
        }
    }
}
