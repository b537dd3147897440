//! Why something that a server said is not used, in words that are short enough to show.

/// Why what a server says of a resource is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {:?}: {reason}", shorten(.resource))]
pub(super) struct Refusal {
    /// What it is.
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) resource: String,
    /// What is wrong.
    pub(super) reason: String,
}

/// As much of a text from outside as an error shows.
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

const MAX_SHOWN: usize = 200;
