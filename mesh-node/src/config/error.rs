//! One message for whatever is wrong with a configuration.

use std::fmt;
use std::io;

/// Where something stands.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Place {
    /// The file as a whole.
    File,
    /// A position in the file, both counted from 1.
    Position {
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// An environment variable that overrides a key.
    Variable(String),
}

/// What is wrong with a configuration, where, and what is allowed instead.
///
/// Reads `mesh.yaml:14:3: resilience.circuit_braker: unknown key; did you mean "circuit_breaker"? …`. Never contains a
/// secret, nor a value that came from the environment.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// The key, such as `resilience.retry.budget` or `policy.rules[2].from`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub message: String,
    /// Why, where the system said so.
    pub source: Option<io::Error>,
}

impl ConfigError {
    pub(crate) fn new(file: &str, place: Place, key: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            place,
            key: key.to_owned(),
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn unreadable(file: &str, source: io::Error) -> Self {
        let message = "could not read the configuration".to_owned();
        Self {
            file: file.to_owned(),
            place: Place::File,
            key: String::new(),
            message,
            source: Some(source),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File => write!(f, "{}: ", self.file)?,
            Place::Position { line, column } => write!(f, "{}:{line}:{column}: ", self.file)?,
            Place::Variable(name) => write!(f, "environment variable {name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// `; did you mean "x"?` where one of `allowed` is near to `given`, else nothing.
pub(super) fn did_you_mean(given: &str, allowed: &[&str]) -> String {
    let near = allowed
        .iter()
        .map(|word| (distance(given, word), *word))
        .min();
    match near {
        Some((edits, word)) if edits <= 1 + word.chars().count() / 4 => {
            format!("; did you mean \"{word}\"?")
        }
        _ => String::new(),
    }
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left
        .chars()
        .take(LONGEST_WORD)
        .flat_map(char::to_lowercase)
        .collect();
    let right: Vec<char> = right
        .chars()
        .take(LONGEST_WORD)
        .flat_map(char::to_lowercase)
        .collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[left.len()][right.len()]
}

/// No key or variable is longer; it bounds the work on a hostile one.
const LONGEST_WORD: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_word_and_nothing_that_is_far() {
        let allowed = ["circuit_breaker", "rate_limit", "retry"];
        assert_eq!(
            did_you_mean("circuit_braker", &allowed),
            "; did you mean \"circuit_breaker\"?"
        );
        assert_eq!(did_you_mean("rtery", &allowed), "; did you mean \"retry\"?");
        assert_eq!(did_you_mean("Retry", &allowed), "; did you mean \"retry\"?");
        assert_eq!(did_you_mean("observability", &allowed), "");
    }
}
