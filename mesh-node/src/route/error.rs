//! Why routes can't be used as they are written.

use std::fmt;

use http::StatusCode;
use mesh_auth::policy::PathError;
use mesh_auth::request::RequestError;
use mesh_resilience::ConfigError;
use thiserror::Error;

use super::MAX_ANSWER_BYTES;
use super::MAX_LIST;
use super::MAX_REGEX_BYTES;
use super::MAX_ROUTES;

/// What is wrong with a route, and at which key.
#[derive(Debug)]
#[non_exhaustive]
pub struct RouteError {
    /// The key, such as `routes[2].match.path`.
    pub key: String,
    /// What is wrong with it.
    pub problem: RouteProblem,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for RouteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}

/// What is wrong with a part of a route.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RouteProblem {
    /// There are too many routes.
    #[error("there are {count} routes; at most {MAX_ROUTES} are possible")]
    TooManyRoutes {
        /// How many there are.
        count: usize,
    },
    /// A list is too long.
    #[error("has {count} members; at most {MAX_LIST} are possible")]
    TooLong {
        /// How many it has.
        count: usize,
    },
    /// The name is none.
    #[error(
        "is no name for a route; write 1 to 64 letters, digits, '-', '_' and '.', such as orders-canary"
    )]
    Name,
    /// Another route has the name.
    #[error("is the name of routes[{other}] too; each route needs a name of its own")]
    DuplicateName {
        /// The other route's place.
        other: usize,
    },
    /// A service that nobody can call.
    #[error(
        "is not a service name; write lower-case letters, digits, '-', '_' and '.', such as order-service"
    )]
    Service,
    /// A method that no request has.
    #[error("is not a method; write it in upper case, such as GET")]
    Method,
    /// The path pattern is none.
    #[error("is not a path that a route can match")]
    Path(#[source] PathError),
    /// Both forms of a path are given.
    #[error("and path exclude each other; remove one of them")]
    TwoPaths,
    /// The regular expression is too long.
    #[error("is longer than {MAX_REGEX_BYTES} bytes")]
    RegexTooLong,
    /// The regular expression is none.
    #[error("is not a regular expression: {why} at column {column}")]
    Regex {
        /// What is wrong.
        why: String,
        /// Where in the expression, in characters from 1.
        column: usize,
    },
    /// The regular expression becomes too large.
    #[error("becomes larger than 128 KiB when compiled; repeat less in it")]
    RegexTooLarge,
    /// A field's name is none.
    #[error("is not the name of {0}")]
    FieldName(&'static str),
    /// No call has such a field when routes are asked.
    #[error("is never seen here: {0}")]
    NeverSeen(&'static str),
    /// Not exactly one way to match a field.
    #[error("needs exactly one of \"equals\", \"prefix\", \"regex\" and \"present\"")]
    FieldRule,
    /// No target takes a call.
    #[error("have the weights 0 alone, so no call could go anywhere; give one of them a weight")]
    NoWeight,
    /// A weight is too large.
    #[error("is larger than 1000000")]
    Weight,
    /// A subset that names nothing.
    #[error("names nothing; give a zone, a version, tags or metadata, or leave it out")]
    EmptySubset,
    /// Not exactly one of two.
    #[error("needs exactly one of \"{0}\" and \"{1}\"")]
    OneOf(&'static str, &'static str),
    /// None of several.
    #[error("needs at least one of {0}")]
    NoneOf(&'static str),
    /// A cookie's name is none.
    #[error("is not the name of a cookie; write letters, digits, '-' and '_'")]
    Cookie,
    /// A status that makes no sense here.
    #[error("is not one of {0}")]
    Status(&'static str),
    /// A header field that routes don't change.
    #[error("is not changed by routes: {0}")]
    Forbidden(&'static str),
    /// A value that no header field has.
    #[error("is not the value of a header field")]
    HeaderValue,
    /// The new path is none.
    #[error("is not a path; write it like /v2/items, or /v2/* where match.path ends in /* too")]
    NewPath,
    /// The new path would not be sent as it is written.
    #[error("is not a path that can be sent")]
    NewPathRefused(#[source] RequestError),
    /// A prefix without one to replace.
    #[error(
        "replaces a prefix, but match.path is none; end that in /*, or write the whole new path"
    )]
    NoPrefix,
    /// The new host is none.
    #[error("is not a host with an optional port")]
    Host,
    /// A scheme that is not HTTP's.
    #[error("is not http or https")]
    Scheme,
    /// A body that is too long.
    #[error("is longer than {MAX_ANSWER_BYTES} bytes")]
    BodyTooLong,
    /// A body beside a status that has none.
    #[error("has no meaning beside the status {}, which has no body; remove one of them", .0.as_u16())]
    NoBody(StatusCode),
    /// What a layer can't be made of.
    #[error("can't be used")]
    Layer(#[source] ConfigError),
    /// What can't be had together with a redirect.
    #[error("has no meaning beside redirect, which sends nothing; remove one of them")]
    BesideRedirect,
}
