//! Routes: which one takes a call, and what it says about it. Pure: nothing here opens or sends anything.
//!
//! # Terms
//!
//! - A *route* is what the configuration says of some calls: where they go, and how.
//! - It *matches* a call when everything in its `match` holds; the first that does takes the call.
//! - A *target* is one of the places that a route's calls are split between.
//!
//! # What is matched
//!
//! The canonical request, so what a route sees is what is sent.
//!
//! | part | as |
//! |---|---|
//! | path | literal patterns as the policy has them, with escapes undone on both sides; regular expressions see the path as it is sent, escapes in upper case. The query is no part of it |
//! | header | the field's combined value (RFC 9110 section 5.2): several fields of one name are one, joined by `, ` (`; ` for `cookie`) |
//! | query | the first parameter of that name, `+` and escapes undone (WHATWG URL, section 5.1) |
//!
//! Upper and lower case differ, but in names of header fields.
//!
//! # Bounds
//!
//! At most [`MAX_ROUTES`] routes, each with the lists that [`MAX_LIST`] allows. Regular expressions are those of RE2
//! (no back references, no look-around; ASCII classes), whose time is linear in the path or value: Cox, "Regular
//! Expression Matching Can Be Simple And Fast" (2007). Each has at most [`MAX_REGEX_BYTES`] bytes and a compiled size of
//! 128 KiB. Routes that name services are found by service, so that a call costs nothing for routes of other services.

mod build;
mod edit;
mod error;
mod fallback;
mod fault;
mod field;
mod matcher;
mod reach;
mod regex;
mod review;
mod table;
mod target;

use std::sync::Arc;
use std::time::Duration;

pub use self::edit::HeaderEdits;
pub use self::edit::PathRewrite;
pub use self::edit::Redirect;
pub use self::edit::Rewrite;
pub use self::error::RouteError;
pub use self::error::RouteProblem;
pub use self::fallback::Fallback;
pub use self::fallback::FixedAnswer;
pub use self::fallback::StaleAnswers;
pub use self::fault::Abort;
pub use self::fault::Delay;
pub use self::fault::Fault;
pub use self::fault::FaultStatus;
pub use self::fault::Mirror;
pub use self::matcher::Mismatch;
pub use self::review::Reach;
pub use self::review::Witness;
pub use self::table::Asked;
pub use self::table::Found;
pub use self::table::RouteTable;
pub use self::target::Sticky;
pub use self::target::Target;
pub use self::target::Targets;

pub(crate) use self::fallback::fields_of;

use self::matcher::Matcher;
use crate::config::BulkheadConfig;
use crate::config::CircuitBreakerConfig;
use crate::config::HedgeConfig;
use crate::config::RateLimitConfig;
use crate::config::RetryConfig;

/// A route, compiled.
#[derive(Debug)]
#[non_exhaustive]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Its place in the table, from 0.
    pub index: usize,
    /// Where its calls go.
    pub targets: Targets,
    /// By what a caller is known again.
    pub sticky: Option<Sticky>,
    /// Where copies go.
    pub mirror: Option<Mirror>,
    /// Faults that are made on purpose.
    pub fault: Option<Fault>,
    /// What is given where the service gave no good answer.
    pub fallback: Option<Fallback>,
    /// Changes of path and host.
    pub rewrite: Option<Rewrite>,
    /// The redirect that answers its calls.
    pub redirect: Option<Redirect>,
    /// Changes of requests' header fields.
    pub request_headers: HeaderEdits,
    /// Changes of answers' header fields.
    pub response_headers: HeaderEdits,
    /// What it says instead of `resilience`.
    pub overrides: Overrides,
    matcher: Matcher,
}

/// What a route says instead of `resilience`; what it does not say is as there.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Overrides {
    /// How long a call may take, all attempts together.
    pub timeout: Option<Duration>,
    /// When a failed call is tried again.
    pub retry: Option<RetryConfig>,
    /// When a slow call is sent a second time.
    pub hedge: Option<HedgeConfig>,
    /// The route's own breaker.
    pub circuit_breaker: Option<CircuitBreakerConfig>,
    /// The route's own places.
    pub bulkhead: Option<BulkheadConfig>,
    /// The route's own limit.
    pub rate_limit: Option<RateLimitConfig>,
}

/// Most routes of a node.
pub const MAX_ROUTES: usize = 1000;
/// Most members of one list of a route.
pub const MAX_LIST: usize = 64;
/// Longest regular expression, in bytes.
pub const MAX_REGEX_BYTES: usize = 1024;
/// Longest body of an answer that a route makes itself, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
