//! Path patterns: literal, never regular expressions.

mod cover;
mod matcher;
mod witness;

pub use self::matcher::PathMatcher;

pub(super) use self::cover::covers;

use super::PathError;
use crate::request::{canonical, decoded};

/// A compiled pattern. All texts are compared with escapes undone on both sides, so that `/a:b` in a
/// rule also means a request's `/a%3Ab`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum PathPattern {
    Exact(Box<[u8]>),
    /// Ends in a slash.
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Template {
        segments: Box<[Segment]>,
        is_open: bool,
    },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Segment {
    Literal(Box<[u8]>),
    Any,
}

impl Segment {
    /// Its text; a placeholder has none.
    fn literal(&self) -> Option<&[u8]> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Any => None,
        }
    }
}

impl PathPattern {
    /// Compiles a pattern, refusing those that a canonical path can't ever match.
    pub(super) fn parse(pattern: &str) -> Result<Self, PathError> {
        check_is_path(pattern)?;
        if pattern.split('/').count() > MAX_SEGMENTS {
            return Err(PathError::TooManySegments);
        }
        if let Some(suffix) = pattern.strip_prefix('*') {
            check_no_wildcard(suffix)?;
            if suffix.is_empty() {
                return Err(PathError::Everything);
            }
            return Ok(Self::Suffix(literal("/x", suffix)?));
        }
        if !pattern.starts_with('/') {
            return Err(PathError::NoSlash);
        }
        let (fixed, is_open) = match pattern.strip_suffix('*') {
            Some(fixed) if fixed.ends_with('/') => (fixed, true),
            Some(_) => return Err(PathError::PartialSegment),
            None => (pattern, false),
        };
        if fixed.contains(['{', '}']) {
            return Self::template(fixed, is_open);
        }
        check_no_wildcard(fixed)?;
        let text = literal("", fixed)?;
        Ok(if is_open {
            Self::Prefix(text)
        } else {
            Self::Exact(text)
        })
    }

    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// Whether a canonical path, its escapes undone, matches. With `folded`, a trailing slash makes
    /// no difference.
    pub(super) fn matches(&self, path: &[u8], folded: bool) -> bool {
        if self.matches_as_is(path) {
            return true;
        }
        if !folded {
            return false;
        }
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        match self {
            Self::Exact(text) => text.strip_suffix(b"/").unwrap_or(text) == trimmed,
            Self::Prefix(text) => text.strip_suffix(b"/") == Some(trimmed),
            Self::Suffix(text) => trimmed.ends_with(text.strip_suffix(b"/").unwrap_or(text)),
            Self::Template { segments, .. } => {
                let is_slashed = segments.last() == Some(&Segment::Literal(Box::default()));
                let fixed = if is_slashed {
                    segments.split_last().map_or(&[][..], |(_, rest)| rest)
                } else {
                    segments
                };
                matches_template(fixed, false, trimmed)
            }
        }
    }

    fn matches_as_is(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => **text == *path,
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => path.ends_with(text),
            Self::Template { segments, is_open } => matches_template(segments, *is_open, path),
        }
    }

    /// `fixed` is the pattern without its final star: where the pattern is open, it ends in a slash.
    fn template(fixed: &str, is_open: bool) -> Result<Self, PathError> {
        let fixed = if is_open {
            fixed.strip_suffix('/').unwrap_or(fixed)
        } else {
            fixed
        };
        if fixed.contains("//") {
            return Err(PathError::NotCanonical {
                canonical: fixed.replace("//", "/"),
            });
        }
        let segments = fixed
            .split('/')
            .skip(1)
            .map(|segment| {
                match segment
                    .strip_prefix('{')
                    .and_then(|rest| rest.strip_suffix('}'))
                {
                    Some(name) if name.is_empty() || name.contains(['{', '}', '*']) => {
                        Err(PathError::Placeholder)
                    }
                    Some(_) => Ok(Segment::Any),
                    None if segment.contains(['{', '}']) => Err(PathError::Placeholder),
                    None => check_no_wildcard(segment)
                        .and_then(|()| literal_segment(segment))
                        .map(Segment::Literal),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self::Template { segments, is_open })
    }
}

fn matches_template(segments: &[Segment], is_open: bool, path: &[u8]) -> bool {
    let mut given = path.split(|&byte| byte == b'/').skip(1);
    for segment in segments {
        let matches = match (segment, given.next()) {
            (Segment::Literal(text), Some(own)) => **text == *own,
            (Segment::Any, Some(own)) => !own.is_empty(),
            (_, None) => false,
        };
        if !matches {
            return false;
        }
    }
    // An open template stands for `/*` at its end, which needs the slash.
    given.next().is_some() == is_open
}

fn literal_segment(segment: &str) -> Result<Box<[u8]>, PathError> {
    // Only the last segment can be empty: the path's trailing slash.
    if segment.is_empty() {
        Ok(Box::default())
    } else {
        literal("/", segment)
    }
}

/// A pattern is about the path alone.
fn check_is_path(pattern: &str) -> Result<(), PathError> {
    if pattern.contains(['?', '#']) {
        Err(PathError::Query)
    } else {
        Ok(())
    }
}

fn check_no_wildcard(text: &str) -> Result<(), PathError> {
    if text.contains('*') {
        Err(PathError::Wildcard)
    } else {
        Ok(())
    }
}

/// Undoes the escapes of a text that stands behind `before` in a path, refusing a text that no
/// canonical path holds: the rule would never match.
pub(super) fn literal(before: &str, text: &str) -> Result<Box<[u8]>, PathError> {
    let whole = format!("{before}{text}");
    // Whether path parameters are accepted is the listener's choice, unknown here.
    let canonical = canonical(&whole, true).map_err(PathError::NeverMatches)?;
    let (sent, written): (Vec<u8>, Vec<u8>) =
        (decoded(&canonical).collect(), decoded(&whole).collect());
    if sent != written {
        return Err(PathError::NotCanonical {
            canonical: canonical.into_owned(),
        });
    }
    Ok(written.get(before.len()..).unwrap_or_default().into())
}

/// Most segments of a pattern, which the index descends by.
pub(super) const MAX_SEGMENTS: usize = 64;

#[cfg(test)]
mod tests;
