//! What is given where a service gave no good answer.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::StatusCode;
use mesh_resilience::fallback::stale::StaleConfig;

use super::Route;
use super::Sticky;

/// What is given in place of an error, in this order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fallback {
    /// Another service that is asked.
    pub service: Option<Arc<str>>,
    /// The last good answer.
    pub stale: Option<StaleAnswers>,
    /// An answer that is the same for all.
    pub answer: Option<FixedAnswer>,
}

/// Which answers are kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StaleAnswers {
    /// How many, and for how long.
    pub config: StaleConfig,
    /// Fields of requests that an answer depends on.
    pub fields: Box<[HeaderName]>,
}

/// An answer that is made here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FixedAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The header fields that a route tells calls apart by: of `match` and `fault`, and the one that it is sticky by.
pub(crate) fn fields_of(route: &Route) -> impl Iterator<Item = &HeaderName> {
    let of_fault = route.fault.iter().flat_map(|fault| &fault.headers);
    let rules = route.matcher.headers.iter().chain(of_fault);
    let sticky = route.sticky.as_ref().and_then(|sticky| match sticky {
        Sticky::Header(name) => Some(name),
        Sticky::Cookie { .. } => None,
    });
    rules.map(|rule| &rule.name).chain(sticky)
}
