//! When to refuse calls to this node's application because it has too many.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// When to refuse calls to this node's application because it has too many under way to answer them in time. How many that
/// is follows what they take.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadSheddingConfig {
    /// Whether it is done. Default false: it needs an application whose latency tells of its load, and not one whose calls wait
    /// for something to happen (long polling).
    pub enabled: bool,
    /// Calls that may always be under way together. Default 4.
    pub min_limit: NonZeroU32,
    /// The limit before anything is known of the application. Default 100.
    pub initial_limit: NonZeroU32,
    /// Calls that may be under way together at most. Default 1000; small for an application that runs one or two at a time.
    pub max_limit: NonZeroU32,
    /// How much longer than unhindered a call may take, 1.05 to 4. Default 1.25.
    #[schemars(range(min = 1.05, max = 4.0))]
    pub tolerance: f64,
}

impl Default for LoadSheddingConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            min_limit: value::nonzero(MIN_LIMIT),
            initial_limit: value::nonzero(INITIAL_LIMIT),
            max_limit: value::nonzero(MAX_LIMIT),
            tolerance: TOLERANCE,
        }
    }
}

/// As the library's own defaults.
const MIN_LIMIT: u32 = 4;
const INITIAL_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;
const TOLERANCE: f64 = 1.25;
