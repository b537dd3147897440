//! Whether one pattern matches every path that another one matches: exactly, for canonical paths.

use super::{PathPattern, Segment};

/// Whether every canonical path that `narrow` matches is matched by `wide` too. Exact: where the answer is no, there is a
/// path that only `narrow` matches. A trailing slash counts.
pub(in crate::policy) fn covers(wide: &PathPattern, narrow: &PathPattern) -> bool {
    match (wide, narrow) {
        (_, PathPattern::Exact(path)) => wide.matches(path, false),
        (PathPattern::Suffix(wide), PathPattern::Suffix(narrow)) => narrow.ends_with(wide),
        (PathPattern::Suffix(wide), PathPattern::Template { segments, is_open }) => {
            !is_open && fixed_end(segments).ends_with(wide)
        }
        // What is below a prefix ends in anything.
        (PathPattern::Suffix(_), PathPattern::Prefix(_)) => false,
        (_, PathPattern::Suffix(narrow)) => Shape::of(wide).is_any_of(least_slashes(narrow)),
        _ => Shape::of(wide).covers(&Shape::of(narrow)),
    }
}

/// Segments, of which a placeholder is none; where it is open, at least one more follows, which may be empty.
pub(super) struct Shape<'a> {
    pub(super) segments: Vec<Option<&'a [u8]>>,
    pub(super) is_open: bool,
}

impl<'a> Shape<'a> {
    /// A suffix has none, and is not asked.
    pub(super) fn of(pattern: &'a PathPattern) -> Self {
        match pattern {
            PathPattern::Exact(text) => Self::of_text(text, false),
            PathPattern::Prefix(text) => {
                Self::of_text(text.strip_suffix(b"/").unwrap_or(text), true)
            }
            PathPattern::Suffix(_) => Self {
                segments: Vec::new(),
                is_open: false,
            },
            PathPattern::Template { segments, is_open } => Self {
                segments: segments.iter().map(Segment::literal).collect(),
                is_open: *is_open,
            },
        }
    }

    fn of_text(text: &'a [u8], is_open: bool) -> Self {
        let segments = text.split(|&byte| byte == b'/').skip(1).map(Some).collect();
        Self { segments, is_open }
    }

    fn covers(&self, narrow: &Self) -> bool {
        let fits = match (self.is_open, narrow.is_open) {
            (false, false) => self.segments.len() == narrow.segments.len(),
            (false, true) => false,
            (true, false) => self.segments.len() < narrow.segments.len(),
            (true, true) => self.segments.len() <= narrow.segments.len(),
        };
        // Of a canonical path only the last segment is ever empty, and a placeholder stands for none that is.
        let covered = |(wide, narrow): (Option<&[u8]>, Option<&[u8]>)| match (wide, narrow) {
            (None, Some(text)) => !text.is_empty(),
            (None, None) => true,
            (Some(_), _) => wide == narrow,
        };
        let own = self.segments.iter().copied();
        fits && own.zip(narrow.segments.iter().copied()).all(covered)
    }

    /// Whether it matches every path with at least that many slashes.
    fn is_any_of(&self, slashes: usize) -> bool {
        self.is_open && self.segments.iter().all(Option::is_none) && self.segments.len() < slashes
    }
}

/// What every path of a closed template ends in.
fn fixed_end(segments: &[Segment]) -> Vec<u8> {
    let after = segments
        .iter()
        .rposition(|segment| *segment == Segment::Any)
        .map_or(0, |last| last.saturating_add(1));
    let mut end = Vec::new();
    for segment in segments.get(after..).unwrap_or_default() {
        if let Segment::Literal(text) = segment {
            end.push(b'/');
            end.extend_from_slice(text);
        }
    }
    end
}

/// The fewest slashes of a path that ends in `suffix`.
fn least_slashes(suffix: &[u8]) -> usize {
    let own = suffix.split(|&byte| byte == b'/').skip(1).count();
    own.saturating_add(usize::from(!suffix.starts_with(b"/")))
}
