//! Writes that can be sent again: how much of them is remembered, and for how long.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// Calls that are not safe to repeat (POST, PATCH), made so: they get an id, the called node answers a repeat from memory, and
/// the calling node sends them again after a loss, to the same instance. Both nodes need it.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SafeWritesConfig {
    /// Whether it is done, for calls of this node's application and for calls to it. Default false: each answer of the last
    /// minutes is held in memory, and a call runs on when its caller is gone.
    pub enabled: bool,
    /// How long a call is remembered, 1 ms to 24 h. Longer than `resilience.timeout` of every caller. Default `10m`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub window: Duration,
    /// Calls that are remembered. Beyond it the caller with the most loses its oldest one. Default 65536.
    pub max_entries: NonZeroU32,
    /// Bytes of answers that are kept. Default 67108864 (64 MiB).
    pub max_bytes: NonZeroU32,
    /// Bytes of the largest answer that is kept, header included; at most `max_bytes`. Default 65536.
    pub max_answer_bytes: NonZeroU32,
}

impl Default for SafeWritesConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            window: WINDOW,
            max_entries: value::nonzero(MAX_ENTRIES),
            max_bytes: value::nonzero(MAX_BYTES),
            max_answer_bytes: value::nonzero(MAX_ANSWER_BYTES),
        }
    }
}

/// As the library's own defaults.
const WINDOW: Duration = Duration::from_mins(10);
const MAX_ENTRIES: u32 = 65_536;
const MAX_BYTES: u32 = 64 * 1024 * 1024;
const MAX_ANSWER_BYTES: u32 = 64 * 1024;
