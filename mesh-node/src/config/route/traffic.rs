//! What a route does to calls beside carrying them: copies, and faults that are made on purpose.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::FieldMatchConfig;
use super::Percent;
use super::SubsetConfig;
use crate::config::value;

/// Where copies of calls go. Their answers are dropped, and what becomes of them never reaches the caller.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorConfig {
    /// The service. Default: the one that was called.
    #[serde(
        deserialize_with = "value::some_service_name",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub service: Option<String>,
    /// Only those of its endpoints that are like this. Default: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SubsetConfig")]
    pub subset: Option<SubsetConfig>,
    /// The share of the calls that is copied. Default 100.
    pub percent: Percent,
    /// Copies under way at a time; more are not made. Default 20.
    pub max_concurrent: NonZeroU32,
    /// How long a copy may take. Default `1s`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            service: None,
            subset: None,
            percent: Percent::ALL,
            max_concurrent: value::nonzero(MIRROR_CONCURRENT),
            timeout: MIRROR_TIMEOUT,
        }
    }
}

/// Faults that are made on purpose, to see what a caller does with them.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultConfig {
    /// Makes calls wait before they are sent. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DelayConfig")]
    pub delay: Option<DelayConfig>,
    /// Answers calls with an error instead of sending them. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AbortConfig")]
    pub abort: Option<AbortConfig>,
    /// Header fields that a call must have to get any of this. Default: every call of the route does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<FieldMatchConfig>,
}

/// A delay.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DelayConfig {
    /// How long. Required.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub time: Duration,
    /// The share of the calls that waits. Required.
    pub percent: Percent,
}

/// An error: exactly one of `status` and `grpc_status`.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AbortConfig {
    /// A status of HTTP, 400 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16")]
    pub status: Option<u16>,
    /// A status of gRPC, 1 to 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8")]
    pub grpc_status: Option<u8>,
    /// The share of the calls that is answered so. Required.
    pub percent: Percent,
}

const MIRROR_CONCURRENT: u32 = 20;
/// Nobody waits for a copy, but it takes one of the places.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(1);
