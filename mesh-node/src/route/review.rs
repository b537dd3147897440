//! Which routes some call reaches, and which none does.
//!
//! A route is *shadowed* where an earlier one matches every call that it matches, and *unreachable* where several earlier ones
//! do so together, or where it contradicts itself. Otherwise there is a call that it takes, and it is made here: its path,
//! fields and parameters match as few other routes as can be (a *witness*).
//!
//! Exact for services, methods, literal paths of all forms, and fields by `equals`, `prefix` and `present`. A regular
//! expression is equal to one of the same text and otherwise only tried on the calls made here; where that leaves the
//! answer open, nothing is said ([`Reach::Unknown`]), so what is reported is never reached.

mod cover;
mod fields;

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use http::Method;
use mesh_auth::policy::PathMatcher;

use self::cover::covers;
use self::fields::Fields;
use super::Asked;
use super::Route;
use super::matcher::PathRule;
use super::table::Seen;

/// Whether calls reach a route.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reach {
    /// Such a call does.
    Reached(Box<Witness>),
    /// None: the route at that place matches all that it matches.
    Shadowed(usize),
    /// None: the routes at these places do so together, or, where there are none, it contradicts itself.
    Unreachable(Vec<usize>),
    /// Regular expressions, or too many combinations, leave it open.
    Unknown,
}

/// A call that a route takes.
#[derive(Clone, Debug)]
pub struct Witness {
    service: String,
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Witness {
    /// The call.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            service: &self.service,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.method, self.path, self.service)
    }
}

/// Whether calls reach each of the routes, in their order.
pub(super) fn of_each(routes: &[Arc<Route>]) -> Vec<Reach> {
    let routes: Vec<&Route> = routes.iter().map(AsRef::as_ref).collect();
    let fresh = Fresh::of(&routes);
    let mut all_steps = MOST_STEPS;
    let reaches = (0..routes.len()).map(|index| {
        let (earlier, rest) = routes.split_at(index);
        let Some(route) = rest.first() else {
            return Reach::Unknown;
        };
        if let Some(by) = earlier.iter().position(|wide| covers(wide, route)) {
            return Reach::Shadowed(by);
        }
        let granted = all_steps.min(MOST_STEPS_A_ROUTE);
        let mut search = Search {
            route,
            earlier,
            fresh: &fresh,
            steps: granted,
            takers: Vec::new(),
            is_open: false,
        };
        let reach = search.run();
        all_steps = all_steps.saturating_sub(granted.saturating_sub(search.steps));
        reach
    });
    reaches.collect()
}

/// What no route names.
struct Fresh {
    text: String,
    service: String,
    method: Method,
    /// The most segments that a path pattern names.
    depth: usize,
}

impl Fresh {
    fn of(routes: &[&Route]) -> Self {
        let mut texts = Vec::new();
        let (mut services, mut methods) = (Vec::new(), Vec::new());
        let mut depth = 0;
        for route in routes {
            let matcher = &route.matcher;
            services.extend(matcher.services.iter().map(AsRef::as_ref));
            methods.extend(matcher.methods.iter().map(Method::as_str));
            if let Some(PathRule::Pattern { text, pattern }) = &matcher.path {
                texts.extend(PathMatcher::undo_escapes(text));
                depth = depth.max(pattern.segments());
            }
            for (_, rule) in fields::rules(matcher) {
                texts.extend_from_slice(rule.text());
            }
        }
        let texts = String::from_utf8_lossy(&texts);
        // A letter of which no pattern has even a part; there are far more of them than a file has room for.
        let letter = ('\u{c0}'..=char::MAX).find(|letter| !texts.contains(*letter));
        let numbered = |before: &'static str| {
            (0..=routes.len() * super::MAX_LIST).map(move |at| format!("{before}{at}"))
        };
        let service = numbered("any-").find(|name| !services.contains(&name.as_str()));
        let method = numbered("ANY").find(|name| !methods.contains(&name.as_str()));
        Self {
            text: letter.into_iter().collect(),
            service: service.unwrap_or_default(),
            method: method
                .and_then(|name| name.parse().ok())
                .unwrap_or(Method::TRACE),
            depth,
        }
    }
}

/// The search for a call that reaches one route.
struct Search<'a> {
    route: &'a Route,
    earlier: &'a [&'a Route],
    fresh: &'a Fresh,
    steps: usize,
    /// Who takes the calls that were tried.
    takers: Vec<usize>,
    /// Whether a call was lost in a way that another one might not be.
    is_open: bool,
}

impl Search<'_> {
    fn run(&mut self) -> Reach {
        let matcher = &self.route.matcher;
        let paths = match &matcher.path {
            None => PathMatcher::parse("/*")
                .map(|all| self.paths_of(&all))
                .unwrap_or_default(),
            Some(PathRule::Pattern { pattern, .. }) => self.paths_of(pattern),
            Some(PathRule::Regex(_)) => return Reach::Unknown,
        };
        let any_service = [self.fresh.service.as_str().into()];
        let services = if matcher.services.is_empty() {
            &any_service[..]
        } else {
            &matcher.services
        };
        let any_method = [self.fresh.method.clone()];
        let methods = if matcher.methods.is_empty() {
            &any_method[..]
        } else {
            &matcher.methods
        };
        for service in services {
            for method in methods {
                for path in &paths {
                    if let Some(witness) = self.try_at((service, method, path)) {
                        return Reach::Reached(Box::new(witness));
                    }
                    if self.steps == 0 {
                        return Reach::Unknown;
                    }
                }
            }
        }
        if self.is_open || paths.is_empty() {
            return Reach::Unknown;
        }
        self.takers.sort_unstable();
        self.takers.dedup();
        Reach::Unreachable(std::mem::take(&mut self.takers))
    }

    fn paths_of(&self, pattern: &PathMatcher) -> Vec<String> {
        pattern.witnesses(self.fresh.depth, &self.fresh.text)
    }

    /// A call of that method and path which no earlier route takes.
    fn try_at(&mut self, (service, method, path): (&str, &Method, &str)) -> Option<Witness> {
        let mut witness = Witness {
            service: service.to_owned(),
            method: method.clone(),
            path: path.to_owned(),
            query: None,
            headers: HeaderMap::new(),
        };
        let asked = witness.asked();
        let seen = Seen::new(&asked);
        self.steps = self.steps.saturating_sub(1 + self.earlier.len() / 16);
        let rivals = self
            .earlier
            .iter()
            .filter(|route| route.matcher.is_at(&seen));
        let rivals: Vec<&Route> = rivals.copied().collect();
        // Another path might not hold a match.
        let is_regex = |route: &&Route| matches!(route.matcher.path, Some(PathRule::Regex(_)));
        self.is_open |= rivals.iter().any(is_regex);
        let mut fields = Fields::new((self.route, &rivals), &self.fresh.text)?;
        let found = fields.solve(&mut self.steps);
        self.is_open |= fields.is_open;
        self.takers.append(&mut fields.takers);
        let (headers, query) = found?;
        (witness.headers, witness.query) = (headers, query);
        Some(witness)
    }
}

/// Enough for hundreds of routes that overlap; each step is a look at some routes.
const MOST_STEPS: usize = 2_000_000;
const MOST_STEPS_A_ROUTE: usize = 50_000;

#[cfg(test)]
mod tests;
