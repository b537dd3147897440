//! Who counts for several nodes.

mod rls;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

pub use self::rls::DescriptorEntry;
pub use self::rls::EntrySource;
pub use self::rls::RlsStoreConfig;
pub use self::rls::RlsWhenAway;

use crate::config::value;

/// Who counts for several nodes; `mode` says which kind, and each kind has keys of its own.
#[non_exhaustive]
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum RateLimitStoreConfig {
    /// Redis or Valkey.
    Redis(RedisStoreConfig),
    /// Envoy's rate limit service.
    Rls(RlsStoreConfig),
}

impl RateLimitStoreConfig {
    /// The paths in it.
    pub(in crate::config) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let optional = match self {
            Self::Redis(redis) => Some([
                &mut redis.password_file,
                &mut redis.ca_file,
                &mut redis.cert_file,
                &mut redis.key_file,
            ]),
            Self::Rls(_) => None,
        };
        optional.into_iter().flatten().flatten()
    }
}

/// The shape that the decoder of files knows: it takes the variant's name from the key `mode` (`decode::TAGGED`).
#[derive(Deserialize)]
#[serde(
    remote = "RateLimitStoreConfig",
    rename = "RateLimitStoreConfig",
    rename_all = "snake_case"
)]
enum Tagged {
    Redis(RedisStoreConfig),
    Rls(RlsStoreConfig),
}

impl<'de> Deserialize<'de> for RateLimitStoreConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tagged::deserialize(deserializer)
    }
}

/// Redis or Valkey: one script a request, by the server's clock. The nodes that have the same prefix and the same limits
/// keep them together.
///
/// What its user must be allowed: `~{PREFIX}:* +evalsha +eval +get +set +time`.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisStoreConfig {
    /// `redis://HOST[:PORT][/DATABASE]`, or `rediss://` for TLS; any node of a cluster. Required.
    pub url: String,
    /// What is done while it is away: `local_share` (this node's part of the limit, `nodes` says how many there are) or
    /// `closed` (requests get 503). Required, for either costs something.
    pub when_away: WhenAway,
    /// How many nodes share the limit, at most: with `local_share` each admits that part of each limit, at least one
    /// request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub nodes: Option<NonZeroU32>,
    /// What all keys begin with, in braces; letters, digits, `-`, `_`, `.` and `:`. Default `mesh:limit:SERVICE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub prefix: Option<String>,
    /// User, where it asks for one. Default none: Redis's own `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub username: Option<String>,
    /// File with the password on one line, for its owner alone to read; read anew at each connection. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub password_file: Option<PathBuf>,
    /// PEM roots that its certificate must lead to, read once at the start; the system's are not used. Required with
    /// `rediss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub ca_file: Option<PathBuf>,
    /// PEM certificate that we show it, where it asks for one; read once, so a new one needs a new start. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cert_file: Option<PathBuf>,
    /// Key of that certificate, for its owner alone to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_file: Option<PathBuf>,
    /// Name that its certificate must have. Default the host that is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub server_name: Option<String>,
    /// How long a request waits for it; after three in a row that waited in vain none does, for a second. Default `50ms`.
    #[serde(default = "timeout", with = "value::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// How long it may take to connect. Default `1s`.
    #[serde(default = "connect_timeout", with = "value::duration")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
}

/// What is done while nobody counts for all nodes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenAway {
    /// Each node admits its part.
    LocalShare,
    /// Nothing is admitted.
    Closed,
}

const fn timeout() -> Duration {
    Duration::from_millis(50)
}

const fn connect_timeout() -> Duration {
    Duration::from_secs(1)
}
