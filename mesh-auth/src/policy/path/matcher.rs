//! The rules' path patterns, for whoever matches paths beside the policy.

use super::super::PathError;
use super::PathPattern;
use super::cover::{Shape, covers};
use super::witness::witnesses;
use crate::request::decoded;

/// A path pattern as rules have it: `/exact`, `/prefix/*`, `*suffix` or `/users/{id}`.
///
/// Literal, never a regular expression, and compared with escapes undone on both sides. A trailing slash counts:
/// `/api/*` does not match `/api`.
///
/// ```
/// # fn main() -> Result<(), mesh_auth::policy::PathError> {
/// use mesh_auth::policy::PathMatcher;
///
/// let orders = PathMatcher::parse("/users/{id}/orders")?;
/// assert!(orders.matches(b"/users/7/orders"));
/// assert!(PathMatcher::parse("/users/*")?.covers(&orders));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathMatcher(PathPattern);

impl PathMatcher {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is none, or one that no canonical path ever matches.
    pub fn parse(pattern: &str) -> Result<Self, PathError> {
        PathPattern::parse(pattern).map(Self)
    }

    /// Whether a canonical path matches whose escapes are undone; see [`Self::undo_escapes`].
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.matches(path, false)
    }

    /// Whether every canonical path that `narrow` matches is matched by this pattern too. Exact: where the answer is no,
    /// there is a path that only `narrow` matches.
    pub fn covers(&self, narrow: &Self) -> bool {
        covers(&self.0, &narrow.0)
    }

    /// Canonical paths that it matches. Where there is a path that it matches and none of some other patterns does, one of
    /// these is such a path, as long as no other pattern contains `fresh` or a part of it, nor has more [segments](Self::segments)
    /// than `depth`.
    pub fn witnesses(&self, depth: usize, fresh: &str) -> Vec<String> {
        witnesses(&self.0, depth, fresh)
    }

    /// How many segments it names; 0 for a suffix.
    pub fn segments(&self) -> usize {
        Shape::of(&self.0).segments.len()
    }

    /// How many segments stand before the star of a prefix (`/api/*`: 1); none where the pattern is no prefix.
    pub fn prefix_segments(&self) -> Option<usize> {
        match &self.0 {
            PathPattern::Prefix(text) => {
                // One slash before each segment, and one at the end.
                Some(text.split(|&byte| byte == b'/').skip(2).count())
            }
            PathPattern::Template {
                segments,
                is_open: true,
            } => Some(segments.len()),
            _ => None,
        }
    }

    /// The bytes of a canonical path with its escapes undone.
    pub fn undo_escapes(path: &str) -> impl Iterator<Item = u8> {
        decoded(path)
    }
}
