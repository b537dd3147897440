//! How many answers are kept, and for how long.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::error::ConfigError;

/// The settings of one memory.
///
/// In the worst case it takes `max_bytes` and some 300 bytes for each of `max_entries`: 17 MiB by default.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct StaleConfig {
    /// How old an answer may be that is given. Default 10 min, range above 0 to 24 h.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub max_age: Duration,
    /// Answers that are kept. Default 1,024; beyond it the one that was used longest ago is forgotten.
    pub max_entries: NonZeroUsize,
    /// Bytes of all answers and their keys. Default 16 MiB; beyond it as for `max_entries`.
    pub max_bytes: usize,
    /// Bytes of the largest answer that is kept, with its key. Default 256 KiB, at most `max_bytes`.
    pub max_answer_bytes: usize,
}

impl StaleConfig {
    /// Sets how old an answer may be that is given.
    #[must_use]
    pub const fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Sets how many answers are kept.
    #[must_use]
    pub const fn with_max_entries(mut self, max_entries: NonZeroUsize) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// Sets how many bytes are kept.
    #[must_use]
    pub const fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets the bytes of the largest answer that is kept.
    #[must_use]
    pub const fn with_max_answer_bytes(mut self, max_answer_bytes: usize) -> Self {
        self.max_answer_bytes = max_answer_bytes;
        self
    }

    /// Checks that a memory can be made of it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] that names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_duration("max_age", self.max_age)?;
        let hours = self.max_age.as_secs_f64() / 3600.0;
        ConfigError::check_range("max_age in hours", hours, 0.0, 24.0)?;
        if self.max_answer_bytes > self.max_bytes {
            #[expect(clippy::cast_precision_loss, reason = "a number for a message")]
            return Err(ConfigError::OutOfRange {
                field: "max_answer_bytes",
                value: self.max_answer_bytes as f64,
                min: 0.0,
                max: self.max_bytes as f64,
            });
        }
        Ok(())
    }
}

impl Default for StaleConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_mins(10),
            max_entries: DEFAULT_ENTRIES,
            max_bytes: 16 << 20,
            max_answer_bytes: 256 << 10,
        }
    }
}

const DEFAULT_ENTRIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
