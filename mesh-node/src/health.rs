//! What is not as it should be, part by part, for `/health`.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

/// The state of a node's parts. A part that has never said anything is well.
#[derive(Debug, Default)]
pub(crate) struct Board {
    parts: Mutex<BTreeMap<&'static str, Part>>,
}

#[derive(Debug)]
struct Part {
    level: Level,
    message: String,
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Level {
    /// Somebody should know.
    Note,
    /// Somebody must act: the part goes on with what it had.
    Degraded,
}

impl Board {
    /// Says that `part` is well again.
    pub(crate) fn ok(&self, part: &'static str) {
        self.parts.lock().remove(part);
    }

    /// Says something about `part` that is no fault.
    pub(crate) fn note(&self, part: &'static str, message: impl Into<String>) {
        self.set(part, Level::Note, message.into());
    }

    /// Says that `part` is not well, and goes on with what it had.
    pub(crate) fn degraded(&self, part: &'static str, message: impl Into<String>) {
        self.set(part, Level::Degraded, message.into());
    }

    /// Whether a part is not well.
    pub(crate) fn is_degraded(&self) -> bool {
        let parts = self.parts.lock();
        parts.values().any(|part| part.level == Level::Degraded)
    }

    /// All that is said, by part.
    pub(crate) fn page(&self) -> Value {
        let parts = self.parts.lock();
        let rows = parts.iter().map(|(name, part)| {
            let level = match part.level {
                Level::Note => "note",
                Level::Degraded => "degraded",
            };
            let row = json!({ "level": level, "message": part.message });
            ((*name).to_owned(), row)
        });
        Value::Object(rows.collect())
    }

    fn set(&self, part: &'static str, level: Level, message: String) {
        self.parts.lock().insert(part, Part { level, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_unwell_until_it_says_otherwise_and_a_note_is_no_fault() {
        let board = Board::default();
        board.note("security", "plaintext is taken");
        assert!(!board.is_degraded());
        board.degraded("policy", "the file is gone");
        assert!(board.is_degraded());
        let page = json!({
            "policy": { "level": "degraded", "message": "the file is gone" },
            "security": { "level": "note", "message": "plaintext is taken" },
        });
        assert_eq!(board.page(), page);
        board.ok("policy");
        assert!(!board.is_degraded());
    }
}
