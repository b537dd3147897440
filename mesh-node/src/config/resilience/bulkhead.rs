//! How many calls run at once, with the defaults of DESIGN section 7.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// How many calls run at once.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkheadConfig {
    /// Calls to one service at the same time. Default 100.
    pub max_concurrent: NonZeroU32,
    /// Calls that may wait for a place; more are refused at once. Default 50.
    pub max_waiting: u32,
    /// How long a call waits for a place. Absent: for as long as it has time.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "value::optional_duration"
    )]
    #[schemars(with = "Option<String>")]
    pub max_wait: Option<Duration>,
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        Self {
            max_concurrent: value::nonzero(BULKHEAD_CONCURRENT),
            max_waiting: BULKHEAD_WAITING,
            max_wait: None,
        }
    }
}

const BULKHEAD_CONCURRENT: u32 = 100;
const BULKHEAD_WAITING: u32 = 50;
