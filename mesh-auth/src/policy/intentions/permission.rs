//! One permission of an intention, compiled.

use http::{HeaderName, Method};

use super::config::{IntentionAction, IntentionHeader, IntentionPermission};
use super::{IntentionError, PathError};
use crate::policy::HttpCall;
use crate::policy::condition::SECRET_HEADERS;
use crate::policy::path::literal;
use crate::policy::rule::parse_method;

#[derive(Debug)]
pub(super) struct Permission {
    action: IntentionAction,
    path: PathMatch,
    methods: Vec<Method>,
    headers: Vec<HeaderMatch>,
}

#[derive(Debug)]
enum PathMatch {
    Any,
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
}

#[derive(Debug)]
struct HeaderMatch {
    name: HeaderName,
    value: ValueMatch,
    ignore_case: bool,
    invert: bool,
}

#[derive(Debug)]
enum ValueMatch {
    Any,
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
}

impl Permission {
    pub(super) fn compile(config: &IntentionPermission) -> Result<Self, IntentionError> {
        let path = match (&config.path_exact, &config.path_prefix) {
            (None, None) => PathMatch::Any,
            (Some(exact), None) => PathMatch::Exact(path(exact)?),
            (None, Some(prefix)) => PathMatch::Prefix(path(prefix)?),
            (Some(_), Some(_)) => return Err(IntentionError::TwoPaths),
        };
        let method = |method: &String| {
            parse_method(method).ok_or_else(|| IntentionError::Method {
                method: method.clone(),
            })
        };
        Ok(Self {
            action: config.action,
            path,
            methods: config
                .methods
                .iter()
                .map(method)
                .collect::<Result<_, _>>()?,
            headers: config
                .headers
                .iter()
                .map(HeaderMatch::compile)
                .collect::<Result<_, _>>()?,
        })
    }

    /// What it does to a request, if it matches it.
    pub(super) fn decide(&self, http: &HttpCall<'_>) -> Option<IntentionAction> {
        let refuses = self.action == IntentionAction::Deny;
        let matches = (self.methods.is_empty() || self.methods.contains(http.method))
            && self.path.matches(&http.plain_path, refuses)
            && self
                .headers
                .iter()
                .all(|header| header.matches(http, refuses));
        matches.then_some(self.action)
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|header| &header.name)
    }
}

impl PathMatch {
    /// With `refuses` a trailing slash makes no difference.
    fn matches(&self, path: &[u8], refuses: bool) -> bool {
        let trimmed = |text| <[u8]>::strip_suffix(text, b"/").unwrap_or(text);
        match self {
            Self::Any => true,
            Self::Exact(text) if refuses => trimmed(text) == trimmed(path),
            Self::Exact(text) => **text == *path,
            Self::Prefix(text) => {
                path.starts_with(text) || refuses && text.strip_suffix(b"/") == Some(path)
            }
        }
    }
}

impl HeaderMatch {
    fn compile(config: &IntentionHeader) -> Result<Self, IntentionError> {
        let name = HeaderName::from_bytes(config.name.as_bytes())
            .ok()
            .filter(|name| !SECRET_HEADERS.contains(&name.as_str()))
            .ok_or_else(|| IntentionError::Header {
                name: config.name.clone(),
            })?;
        let bytes = |text: &String| Box::from(text.as_bytes());
        let given = [
            config.present.then_some(ValueMatch::Any),
            config
                .exact
                .as_ref()
                .map(|text| ValueMatch::Exact(bytes(text))),
            config
                .prefix
                .as_ref()
                .map(|text| ValueMatch::Prefix(bytes(text))),
            config
                .suffix
                .as_ref()
                .map(|text| ValueMatch::Suffix(bytes(text))),
            config
                .contains
                .as_ref()
                .map(|text| ValueMatch::Contains(bytes(text))),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(value), None) => Ok(Self {
                name,
                value,
                ignore_case: config.ignore_case,
                invert: config.invert,
            }),
            _ => Err(IntentionError::HeaderMatch {
                name: config.name.clone(),
            }),
        }
    }

    fn matches(&self, http: &HttpCall<'_>, refuses: bool) -> bool {
        let mut values = http.headers.get_all(&self.name).iter().peekable();
        if values.peek().is_none() {
            return self.invert;
        }
        let mut matches = values.map(|value| self.value_matches(value.as_bytes()) != self.invert);
        if refuses {
            matches.any(|matches| matches)
        } else {
            matches.all(|matches| matches)
        }
    }

    fn value_matches(&self, value: &[u8]) -> bool {
        let same = |own: &[u8], given: &[u8]| {
            if self.ignore_case {
                own.eq_ignore_ascii_case(given)
            } else {
                own == given
            }
        };
        match &self.value {
            ValueMatch::Any => true,
            ValueMatch::Exact(text) => same(text, value),
            ValueMatch::Prefix(text) => value
                .get(..text.len())
                .is_some_and(|start| same(text, start)),
            ValueMatch::Suffix(text) => {
                let start = value.len().checked_sub(text.len());
                let end = start.and_then(|start| value.get(start..));
                end.is_some_and(|end| same(text, end))
            }
            ValueMatch::Contains(text) => {
                text.is_empty() || value.windows(text.len()).any(|part| same(text, part))
            }
        }
    }
}

/// A path, or the beginning of one, with its escapes undone.
fn path(text: &str) -> Result<Box<[u8]>, IntentionError> {
    let refused = |source| IntentionError::Path {
        path: text.to_owned(),
        source,
    };
    if !text.starts_with('/') {
        return Err(refused(PathError::NoSlash));
    }
    if text.contains(['?', '#']) {
        return Err(refused(PathError::Query));
    }
    literal("", text).map_err(refused)
}
