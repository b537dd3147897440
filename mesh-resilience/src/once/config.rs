//! How much is remembered, and for how long.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::error::ConfigError;

/// The settings of one memory.
///
/// In the worst case it takes `max_bytes` and some 400 bytes for each of `max_entries`: 90 MiB by default.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct OnceConfig {
    /// How long a call is remembered, and how long a lease lasts. Default 10 min, range 1 ms to 24 h.
    ///
    /// Longer than a caller goes on repeating; a repeat that comes later is not run.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub window: Duration,
    /// Calls that are remembered. Default 65,536: 109 a second over the whole window.
    ///
    /// Beyond it the caller of whom most is remembered loses its oldest call: its window is shorter then, and a call of
    /// anybody who has no more than the equal share is not touched.
    pub max_entries: NonZeroUsize,
    /// Bytes of answers that are kept. Default 64 MiB; beyond it as for `max_entries`.
    pub max_bytes: usize,
    /// Bytes of the largest answer that is kept. Default 64 KiB, at most `max_bytes`.
    pub max_answer_bytes: usize,
}

impl OnceConfig {
    /// Sets how long a call is remembered.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets how many calls are remembered.
    #[must_use]
    pub const fn with_max_entries(mut self, max_entries: NonZeroUsize) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// Sets how many bytes of answers are kept.
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

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let seconds = self.window.as_secs_f64();
        ConfigError::check_range("window", seconds, 0.001, MAX_WINDOW.as_secs_f64())?;
        #[expect(clippy::cast_precision_loss, reason = "shown in an error only")]
        let (largest, all) = (self.max_answer_bytes as f64, self.max_bytes as f64);
        ConfigError::check_range("max_answer_bytes", largest, 0.0, all)
    }
}

impl Default for OnceConfig {
    fn default() -> Self {
        Self {
            window: DEFAULT_WINDOW,
            max_entries: DEFAULT_MAX_ENTRIES,
            max_bytes: DEFAULT_MAX_BYTES,
            max_answer_bytes: DEFAULT_MAX_ANSWER_BYTES,
        }
    }
}

/// Twenty times the usual time-out of a call.
const DEFAULT_WINDOW: Duration = Duration::from_mins(10);
const DEFAULT_MAX_ENTRIES: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
const DEFAULT_MAX_BYTES: usize = 64 * 1024 * 1024;
const DEFAULT_MAX_ANSWER_BYTES: usize = 64 * 1024;
const MAX_WINDOW: Duration = Duration::from_hours(24);
