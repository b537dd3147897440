//! What a route changes in requests and answers.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::uri::Scheme;

/// A change of path and host.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rewrite {
    /// The new path.
    pub path: Option<PathRewrite>,
    /// The new authority.
    pub host: Option<Box<str>>,
}

/// A new path.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PathRewrite {
    /// This one.
    Whole(Box<str>),
    /// Another one before what is left when the first segments are taken off.
    Prefix {
        /// How many are taken off.
        segments: usize,
        /// What stands there instead; it ends in a slash.
        with: Box<str>,
    },
}

impl PathRewrite {
    /// The new path and the old query.
    pub fn apply(&self, path: &str, query: Option<&str>) -> String {
        let (before, rest) = match self {
            Self::Whole(whole) => (whole, ""),
            Self::Prefix { segments, with } => (with, after(path, *segments)),
        };
        let query_bytes = query.map_or(0, str::len);
        let mut target = String::with_capacity(before.len() + rest.len() + 1 + query_bytes);
        target.push_str(before);
        target.push_str(rest);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        target
    }
}

/// What follows the slash behind the first segments of a canonical path.
fn after(path: &str, segments: usize) -> &str {
    // One slash before each segment, and one behind the last; an escaped one is never in a canonical path.
    path.splitn(segments.saturating_add(2), '/')
        .nth(segments.saturating_add(1))
        .unwrap_or_default()
}

/// A redirect.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// The scheme; none where that of the request stays.
    pub scheme: Option<Scheme>,
    /// The authority; none where that of the request stays.
    pub host: Option<Box<str>>,
    /// The path; none where that of the request stays.
    pub path: Option<PathRewrite>,
}

impl Redirect {
    /// The `location` for a request: a URI, or a relative reference that keeps what is not said (RFC 9110 section 10.2.2,
    /// RFC 3986 section 4.2).
    pub fn location(&self, authority: &str, path: &str, query: Option<&str>) -> String {
        let target = match &self.path {
            Some(rewrite) => rewrite.apply(path, query),
            None => PathRewrite::Whole(path.into()).apply(path, query),
        };
        let authority = self.host.as_deref().unwrap_or(authority);
        match (&self.scheme, &self.host) {
            (Some(scheme), _) => format!("{scheme}://{authority}{target}"),
            (None, Some(_)) => format!("//{authority}{target}"),
            (None, None) => target,
        }
    }
}

/// Changes of header fields.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct HeaderEdits {
    /// Fields that are dropped.
    pub remove: Box<[HeaderName]>,
    /// Fields that have this value afterwards and no other.
    pub set: Box<[(HeaderName, HeaderValue)]>,
    /// Fields that have this value too.
    pub add: Box<[(HeaderName, HeaderValue)]>,
}

impl HeaderEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Makes the changes: `remove`, then `set`, then `add`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}
