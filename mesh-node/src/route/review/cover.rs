//! Whether one route matches every call that another one matches.

use crate::route::Route;
use crate::route::field::FieldRule;
use crate::route::matcher::PathRule;

pub(super) fn covers(wide: &Route, narrow: &Route) -> bool {
    let (wide, narrow) = (&wide.matcher, &narrow.matcher);
    part(&narrow.services, &wide.services)
        && part(&narrow.methods, &wide.methods)
        && match (&wide.path, &narrow.path) {
            (None, _) => true,
            (Some(wide), Some(narrow)) => covers_path(wide, narrow),
            (Some(wide), None) => matches_all_paths(wide),
        }
        && wide.headers.iter().all(|rule| {
            let mut own = narrow.headers.iter();
            own.any(|own| own.name == rule.name && implies(&own.rule, &rule.rule))
        })
        && wide.query.iter().all(|rule| {
            let mut own = narrow.query.iter();
            own.any(|own| own.name == rule.name && implies(&own.rule, &rule.rule))
        })
}

/// For a part that is open where its list is empty.
fn part<T: PartialEq>(narrow: &[T], wide: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|one| wide.contains(one)))
}

fn covers_path(wide: &PathRule, narrow: &PathRule) -> bool {
    match (wide, narrow) {
        (
            PathRule::Pattern { pattern: wide, .. },
            PathRule::Pattern {
                pattern: narrow, ..
            },
        ) => wide.covers(narrow),
        (PathRule::Regex(wide), PathRule::Regex(narrow)) => wide == narrow,
        (wide @ PathRule::Pattern { .. }, PathRule::Regex(_)) => matches_all_paths(wide),
        (PathRule::Regex(_), PathRule::Pattern { .. }) => false,
    }
}

fn matches_all_paths(path: &PathRule) -> bool {
    match path {
        PathRule::Pattern { pattern, .. } => pattern.prefix_segments() == Some(0),
        PathRule::Regex(_) => false,
    }
}

/// Whether every value that is as `narrow` says is as `wide` says too.
fn implies(narrow: &FieldRule, wide: &FieldRule) -> bool {
    match (narrow, wide) {
        (FieldRule::Equals(text), _) => wide.holds(Some(text)),
        (FieldRule::Present(false), _) => wide.holds(None),
        (_, FieldRule::Present(true)) => true,
        (FieldRule::Prefix(narrow), FieldRule::Prefix(wide)) => narrow.starts_with(wide),
        (FieldRule::Present(true), FieldRule::Prefix(wide)) => wide.is_empty(),
        _ => narrow == wide,
    }
}
