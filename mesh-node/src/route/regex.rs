//! Regular expressions of RE2's class: their time is linear in what they look at, and their size is bounded.

use std::sync::Arc;

use regex::bytes;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Look;

use super::MAX_REGEX_BYTES;
use super::RouteProblem;

/// A regular expression, compiled.
#[derive(Clone, Debug)]
pub(super) struct Regex {
    text: Arc<str>,
    compiled: bytes::Regex,
    is_anchored: bool,
}

impl Regex {
    pub(super) fn new(text: &str) -> Result<Self, RouteProblem> {
        if text.len() > MAX_REGEX_BYTES {
            return Err(RouteProblem::RegexTooLong);
        }
        let parsed = ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .nest_limit(MAX_DEPTH)
            .build()
            .parse(text)
            .map_err(|error| place(text, &error))?;
        let compiled = bytes::RegexBuilder::new(text)
            .unicode(false)
            .nest_limit(MAX_DEPTH)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_CACHE_BYTES)
            .build()
            // It was parsed, so nothing but its size is left.
            .map_err(|_too_large| RouteProblem::RegexTooLarge)?;
        let first = parsed.properties().look_set_prefix();
        Ok(Self {
            text: text.into(),
            compiled,
            is_anchored: first.contains(Look::Start),
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether every match begins where the text does.
    pub(super) fn is_anchored(&self) -> bool {
        self.is_anchored
    }

    pub(super) fn is_in(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }
}

/// An expression is the same as another where their texts are.
impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Regex {}

/// What is wrong, in one line, and where.
fn place(text: &str, error: &regex_syntax::Error) -> RouteProblem {
    let (why, offset) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => {
            (error.kind().to_string(), error.span().start.offset)
        }
        _ => ("it can't be read".to_owned(), 0),
    };
    let before = text.char_indices().take_while(|(at, _)| *at < offset);
    RouteProblem::Regex {
        why,
        column: before.count() + 1,
    }
}

/// Room for some thousand states; `[0-9]{1,100}` takes 6 KiB.
const MAX_COMPILED_BYTES: usize = 128 * 1024;
/// Beyond it matching goes on without a cache, slower but as linear.
const MAX_CACHE_BYTES: usize = 256 * 1024;
/// Deepest brackets; the parser goes down once for each.
const MAX_DEPTH: u32 = 50;

#[cfg(test)]
mod tests;
