//! How the keys of sessions are agreed, used and replaced.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::value;

/// Whether sessions are agreed on with ML-KEM-768 beside X25519, so that what is recorded now stays closed to a quantum
/// computer later.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PostQuantum {
    /// With every peer that offers it.
    #[default]
    Prefer,
    /// Always; a peer without it is refused.
    Require,
    /// Never.
    Off,
}

/// What the HMAC of a sealed message covers.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordMac {
    /// All of it: integrity does not rest on AES-GCM alone.
    #[default]
    Full,
    /// Header and GCM tag, with peers that have the same setting: a quarter of the cost of large messages.
    Tag,
}

/// When keys are replaced.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyRotationConfig {
    /// Whether keys are replaced by their age. After 64 GiB or 4 billion messages session keys are in any case. Default
    /// `true`.
    pub enabled: bool,
    /// How old the keys of a session may become before they step to the next. Default `1h`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// How old the RSA identity key may become before a new one is made. Not for nodes whose fingerprint is pinned
    /// somewhere. Default: never by itself; `mesh-node keys rotate` makes one at any time.
    #[serde(
        with = "value::optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String")]
    pub identity_interval: Option<Duration>,
    /// How long a replaced identity key still answers handshakes and lies in the folder; then it is deleted. Default
    /// `24h`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub identity_overlap: Duration,
}

impl Default for KeyRotationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: HOUR,
            identity_interval: None,
            identity_overlap: 24 * HOUR,
        }
    }
}

const HOUR: Duration = Duration::from_hours(1);
