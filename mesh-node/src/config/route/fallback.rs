//! What a route's callers get where its service gave no good answer.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::value;

/// What is given in place of an error. At least one of the three is there; they are asked in this order.
///
/// Never for a call that may have been executed, unless its method says that it may be executed twice.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackConfig {
    /// Another service, which is asked once. Absent: none.
    #[serde(
        deserialize_with = "value::some_service_name",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub service: Option<String>,
    /// The last good answer to the same request; of GET without a body alone. Absent: none is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StaleAnswerConfig")]
    pub stale: Option<StaleAnswerConfig>,
    /// An answer that is the same for all; not for gRPC. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FixedAnswerConfig")]
    pub answer: Option<FixedAnswerConfig>,
}

/// Which answers are kept, and for how long. 1,024 of them at most.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaleAnswerConfig {
    /// How old an answer may be that is given, at most 24 h. Default `10m`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub max_age: Duration,
    /// Bytes of all answers of the route, header included. Default 8388608 (8 MiB).
    pub max_bytes: NonZeroU32,
    /// Bytes of the largest answer that is kept, header included; at most `max_bytes`. Default 65536.
    pub max_answer_bytes: NonZeroU32,
    /// Header fields of requests that an answer depends on, such as one that says who asks, also the one in which the called
    /// side takes API keys. Default: none beside `host`, `accept`, `accept-encoding`, `accept-language`, `origin`, `x-user-id`,
    /// `x-api-key`, `auth.api_key_header`, and the headers of `match`, `fault` and `sticky`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// An answer that this node makes itself.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedAnswerConfig {
    /// Its status, 200 to 599. Default 200.
    pub status: u16,
    /// Its header fields. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What its body is, such as `application/json`. Absent: not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub content_type: Option<String>,
    /// Its body, at most 64 KiB. Default: empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
}

impl Default for StaleAnswerConfig {
    fn default() -> Self {
        Self {
            max_age: MAX_AGE,
            max_bytes: value::nonzero(MAX_BYTES),
            max_answer_bytes: value::nonzero(MAX_ANSWER_BYTES),
            fields: Vec::new(),
        }
    }
}

impl Default for FixedAnswerConfig {
    fn default() -> Self {
        Self {
            status: OK,
            headers: BTreeMap::new(),
            content_type: None,
            body: String::new(),
        }
    }
}

const OK: u16 = 200;
/// As the library's own default.
const MAX_AGE: Duration = Duration::from_mins(10);
/// Less than the library's own: each route has as much.
const MAX_BYTES: u32 = 8 * 1024 * 1024;
const MAX_ANSWER_BYTES: u32 = 64 * 1024;
