//! What an operator, or somebody in their name, may write into a route: nothing that stops a node, takes it long, or is read
//! in two ways.
//!
//! The modules of mesh-node are private there, so their files are included here as they are.

use std::str;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use mesh_auth::policy::PathMatcher;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;

#[allow(
    dead_code,
    reason = "it is another crate's, which uses more of it than this does"
)]
#[path = "../../mesh-node/src/route/error.rs"]
mod error;
#[allow(
    dead_code,
    reason = "it is another crate's, which uses more of it than this does"
)]
#[path = "../../mesh-node/src/route/field.rs"]
mod field;
#[allow(
    dead_code,
    reason = "it is another crate's, which uses more of it than this does"
)]
#[path = "../../mesh-node/src/route/regex.rs"]
mod regex;

use error::RouteProblem;
use field::FieldRule;
use field::HeaderRule;
use field::QueryRule;
use regex::Regex;

// Those of mesh-node.
const MAX_ROUTES: usize = 1000;
const MAX_LIST: usize = 64;
const MAX_REGEX_BYTES: usize = 1024;
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A route and a call in lines: path pattern, regular expression, value, target of the request. A pattern matches what a
/// naive matcher says, and its witnesses; an expression that compiles never fails; values are what they equal.
pub fn route(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (pattern, expression, value, target) = (line(), line(), line(), line());
    let request = Request::get(target)
        .header("host", "orders")
        .header("x-a", value);
    let Ok(request) = request.body(()) else {
        return;
    };
    let limits = Limits::default().with_path_parameters(true);
    let Ok(request) = CanonicalRequest::new(request.into_parts().0, &limits) else {
        return;
    };
    let path: Vec<u8> = PathMatcher::undo_escapes(request.path()).collect();
    if let Ok(matcher) = PathMatcher::parse(pattern) {
        assert_eq!(
            matcher.matches(&path),
            is_match(pattern, &path),
            "{pattern}"
        );
        assert!(matcher.covers(&matcher), "{pattern}");
        for witness in matcher.witnesses(3, "\u{100}") {
            let path: Vec<u8> = PathMatcher::undo_escapes(&witness).collect();
            assert!(matcher.matches(&path), "{pattern} {witness}");
        }
    }
    if let Ok(expression) = Regex::new(expression) {
        expression.is_in(request.path().as_bytes());
        values(
            request.headers(),
            request.query(),
            &FieldRule::Regex(expression),
        );
    }
    values(
        request.headers(),
        request.query(),
        &FieldRule::Present(false),
    );
    let whole = HeaderRule {
        name: HeaderName::from_static("x-a"),
        rule: FieldRule::Equals(value.trim_matches([' ', '\t']).as_bytes().into()),
    };
    // How white space around it is read is not ours to say.
    if HeaderValue::from_str(value).is_ok() && value.trim_matches([' ', '\t']) == value {
        assert!(whole.holds(request.headers()), "{value:?}");
    }
}

/// What is there is not absent.
fn values(headers: &HeaderMap, query: Option<&str>, rule: &FieldRule) {
    let header = HeaderRule {
        name: HeaderName::from_static("x-a"),
        rule: rule.clone(),
    };
    let parameter = QueryRule {
        name: "v".into(),
        rule: rule.clone(),
    };
    let is_absence = *rule == FieldRule::Present(false);
    assert!(!(is_absence && header.holds(headers)));
    if parameter.holds(query) && !is_absence {
        assert!(query.is_some_and(|query| !query.is_empty()));
    }
}

/// As the documentation says it, one segment after the other.
fn is_match(pattern: &str, path: &[u8]) -> bool {
    let undone = |text: &str| PathMatcher::undo_escapes(text).collect::<Vec<u8>>();
    if let Some(suffix) = pattern.strip_prefix('*') {
        return path.ends_with(&undone(suffix));
    }
    let (fixed, is_open) = match pattern.strip_suffix("/*") {
        Some(fixed) => (fixed, true),
        None => (pattern, false),
    };
    let wanted: Vec<&str> = fixed.split('/').skip(1).collect();
    let given: Vec<&[u8]> = path.split(|&byte| byte == b'/').skip(1).collect();
    let is_long_enough = if is_open {
        given.len() > wanted.len()
    } else {
        given.len() == wanted.len()
    };
    let fits = |(wanted, given): (&&str, &&[u8])| {
        if wanted.starts_with('{') {
            !given.is_empty()
        } else {
            undone(wanted) == **given
        }
    };
    is_long_enough && wanted.iter().zip(&given).all(fits)
}
