//! All routes of a node, in their order.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::Method;
use mesh_auth::policy::PathMatcher;
use mesh_auth::request::CanonicalRequest;

use super::Mismatch;
use super::Reach;
use super::Route;
use super::RouteError;
use super::build;
use super::matcher::PathRule;
use super::review;
use crate::config::RouteConfig;

/// The routes of a node. The first that matches a call takes it.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    /// The places of those that name the service.
    by_service: HashMap<Box<str>, Vec<usize>>,
    /// The places of those that name none.
    of_any: Vec<usize>,
}

/// A call, as far as routes look at it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Asked<'a> {
    /// The service, as it was called.
    pub service: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The canonical path.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    /// A call of `service` by `request`.
    pub fn new(service: &'a str, request: &'a CanonicalRequest) -> Self {
        Self {
            service,
            method: request.method(),
            path: request.path(),
            query: request.query(),
            headers: request.headers(),
        }
    }
}

/// Which route takes a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Found<'a> {
    /// It; none where the call simply goes to the service that it names.
    pub route: Option<&'a Arc<Route>>,
}

/// A call, and what was found out about it while routes were asked.
pub(super) struct Seen<'a> {
    pub(super) asked: &'a Asked<'a>,
    path: OnceCell<Cow<'a, [u8]>>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(asked: &'a Asked<'a>) -> Self {
        Self {
            asked,
            path: OnceCell::new(),
        }
    }

    /// The path with its escapes undone.
    pub(super) fn path(&self) -> &[u8] {
        self.path.get_or_init(|| {
            let path = self.asked.path;
            if path.contains('%') {
                Cow::Owned(PathMatcher::undo_escapes(path).collect())
            } else {
                Cow::Borrowed(path.as_bytes())
            }
        })
    }
}

impl RouteTable {
    /// Compiles routes.
    ///
    /// # Errors
    ///
    /// [`RouteError`] names the first key that can't be used.
    pub fn new(configs: &[RouteConfig]) -> Result<Self, RouteError> {
        let routes = build::routes(configs)?;
        let mut table = Self::default();
        for (route, index) in routes.into_iter().zip(0..) {
            for service in &route.matcher.services {
                let own = table.by_service.entry(service.clone()).or_default();
                own.push(index);
            }
            if route.matcher.services.is_empty() {
                table.of_any.push(index);
            }
            table.routes.push(Arc::new(route));
        }
        Ok(table)
    }

    /// Which route takes a call. Takes no lock, and allocates only where the path or the query has escapes or a header field that
    /// is asked for stands there several times.
    pub fn find(&self, asked: &Asked<'_>) -> Found<'_> {
        if self.routes.is_empty() {
            return Found { route: None };
        }
        let seen = Seen::new(asked);
        let route = self
            .candidates(asked.service)
            .find(|route| route.matcher.mismatch(&seen).is_none());
        Found { route }
    }

    /// The routes that stand before the one that takes a call, or all where none does, each with the reason why it does not.
    /// What [`RouteTable::find`] finds is the next.
    pub fn explain(&self, asked: &Asked<'_>) -> Vec<(&Arc<Route>, Mismatch<'_>)> {
        let seen = Seen::new(asked);
        self.routes
            .iter()
            .map_while(|route| Some((route, route.matcher.mismatch(&seen)?)))
            .collect()
    }

    /// All routes, in their order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Whether calls reach each of the routes, in their order.
    pub fn reach(&self) -> Vec<Reach> {
        review::of_each(&self.routes)
    }

    /// The routes whose `path_regex` may match anywhere in a path.
    pub fn unanchored(&self) -> impl Iterator<Item = &Arc<Route>> {
        let loose = |route: &&Arc<Route>| match &route.matcher.path {
            Some(PathRule::Regex(regex)) => !regex.is_anchored(),
            _ => false,
        };
        self.routes.iter().filter(loose)
    }

    /// In their order, those that may be about `service`: of two sorted lists always the smaller head.
    fn candidates(&self, service: &str) -> impl Iterator<Item = &Arc<Route>> {
        let own = self.by_service.get(service).map_or(&[][..], Vec::as_slice);
        let mut own = own.iter().copied().peekable();
        let mut of_any = self.of_any.iter().copied().peekable();
        let indices = std::iter::from_fn(move || match (own.peek(), of_any.peek()) {
            (Some(mine), Some(other)) if mine < other => own.next(),
            (Some(_), None) => own.next(),
            _ => of_any.next(),
        });
        indices.filter_map(|index| self.routes.get(index))
    }
}
