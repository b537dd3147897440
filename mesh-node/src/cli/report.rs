//! What a command answers, and how it fails.

use std::error::Error;
use std::fmt;

use serde_json::Value;
use serde_json::json;

use crate::config::ConfigError;
use crate::config::Document;
use crate::config::Place;

/// An answer, for people and for scripts.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) json: Value,
    /// The exit code: 0, unless the answer is that something did not hold.
    pub(crate) code: u8,
}

impl Report {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Self {
            text: text.into(),
            json,
            code: 0,
        }
    }

    /// The same answer; that something did not hold where `holds` is false.
    pub(super) fn that_holds(self, holds: bool) -> Self {
        let code = if holds { 0 } else { FAILED };
        Self { code, ..self }
    }

    /// An answer that is JSON either way.
    pub(super) fn raw(json: &Value) -> Self {
        Self {
            code: 0,
            text: format!("{json:#}"),
            json: json.clone(),
        }
    }

    /// An answer that is text either way.
    pub(super) fn text(text: String) -> Self {
        Self {
            code: 0,
            json: Value::String(text.clone()),
            text,
        }
    }
}

/// Why a command failed, and the exit code for it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Where, for a configuration that is wrong.
    place: Value,
}

impl Failure {
    /// The operation failed, or the check said no.
    pub(crate) fn new(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::plain(message)
        }
    }

    /// As [`Failure::new`], without a cause.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self {
            code: FAILED,
            message: message.into(),
            source: None,
            place: Value::Null,
        }
    }

    /// Wrong usage.
    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Self {
            code: MISUSE,
            ..Self::plain(message)
        }
    }

    /// The same failure as one of usage.
    pub(crate) fn into_misuse(self) -> Self {
        Self {
            code: MISUSE,
            ..self
        }
    }

    /// A wrong configuration, with a cause that is no I/O error.
    pub(crate) fn because(
        error: ConfigError,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::from(error)
        }
    }

    /// The same failure as one of the configuration, at `key`.
    pub(crate) fn at(self, document: &Document, key: &str) -> Self {
        Self {
            source: self.source,
            ..Self::from(document.error(key, self.message))
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "ok": false, "code": self.code, "error": self.to_string(), "place": self.place })
    }
}

impl fmt::Display for Failure {
    /// The message and its causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let place = match &error.place {
            Place::Position { line, column } => {
                json!({ "file": error.file, "line": line, "column": column, "key": error.key })
            }
            Place::Variable(name) => json!({ "variable": name, "key": error.key }),
            Place::File => json!({ "file": error.file }),
        };
        let message = error.to_string();
        Self {
            code: MISUSE,
            message,
            source: error.source.map(Into::into),
            place,
        }
    }
}

/// The check said no, or the operation failed.
const FAILED: u8 = 1;
/// Wrong usage, or a wrong configuration.
pub(super) const MISUSE: u8 = 2;
