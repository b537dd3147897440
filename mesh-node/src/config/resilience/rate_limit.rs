//! The rate limit: windows that all hold at once, a token bucket, and who counts.

mod store;

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use mesh_resilience::limit::Bucket;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::MAX_WINDOWS;
use mesh_resilience::limit::Window;
use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

pub use self::store::DescriptorEntry;
pub use self::store::EntrySource;
pub use self::store::RateLimitStoreConfig;
pub use self::store::RedisStoreConfig;
pub use self::store::RlsStoreConfig;
pub use self::store::RlsWhenAway;
pub use self::store::WhenAway;

use crate::config::value;

/// Requests in some time: windows and a token bucket that all hold at once.
///
/// In the file it is one window (`{ max_requests: 100, window: 60s }`), a list of them, or
/// `{ windows: […], bucket: {…} }`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateLimitConfig {
    /// The windows, at most [`RateLimitConfig::MAX_WINDOWS`]; none only where there is a bucket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<RateWindow>,
    /// A steady rate. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<RateBucket>,
}

impl RateLimitConfig {
    /// Most windows in one limit: each costs a counter per caller and a check per request.
    pub const MAX_WINDOWS: usize = MAX_WINDOWS;

    /// The windows of DESIGN section 7: 100 a minute and 10,000 an hour.
    pub fn recommended() -> Self {
        let window = |requests, window| RateWindow {
            max_requests: value::nonzero(requests),
            window,
        };
        Self {
            windows: vec![
                window(100, Duration::from_mins(1)),
                window(10_000, Duration::from_hours(1)),
            ],
            bucket: None,
        }
    }

    /// The limits, as they are counted by.
    pub(crate) fn limits(&self) -> LimitConfig {
        let windows = self.windows.iter();
        let windows = windows.map(|window| Window::new(window.max_requests, window.window));
        let limits = LimitConfig::default().with_windows(windows.collect());
        match &self.bucket {
            None => limits,
            Some(bucket) => {
                let made = Bucket::new(bucket.rate, bucket.burst);
                limits.with_bucket(made.with_period(bucket.period))
            }
        }
    }
}

/// Requests that one caller may make, and who counts them.
///
/// A caller is whom its certificate names; in plaintext, its address. In the file it is as [`RateLimitConfig`], and the map
/// may have a `store` too.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallerLimitConfig {
    /// How many requests.
    #[serde(flatten)]
    pub rates: RateLimitConfig,
    /// Who counts, so that several nodes keep one limit together. Default: each node for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<RateLimitStoreConfig>,
}

impl From<RateLimitConfig> for CallerLimitConfig {
    /// Each node counts for itself.
    fn from(rates: RateLimitConfig) -> Self {
        Self { rates, store: None }
    }
}

impl<'de> Deserialize<'de> for RateLimitConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany::<Rates>(PhantomData))
    }
}

impl<'de> Deserialize<'de> for CallerLimitConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany::<SharedRates>(PhantomData))
    }
}

impl JsonSchema for RateLimitConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RateLimitConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many::<Rates>(generator)
    }
}

impl JsonSchema for CallerLimitConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CallerLimitConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many::<SharedRates>(generator)
    }
}

/// At most `max_requests` in `window`.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateWindow {
    /// Requests that a caller may make in one window. Required.
    pub max_requests: NonZeroU32,
    /// Length of the window. Required.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub window: Duration,
}

/// At most `burst` requests at once, and `rate` more in each `period`.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateBucket {
    /// Requests that come back in each period; at most 1,000,000 a second. Required.
    pub rate: NonZeroU32,
    /// What the rate is counted over. Default `1s`.
    #[serde(default = "second", with = "value::duration")]
    #[schemars(with = "String")]
    pub period: Duration,
    /// Requests that a caller may make at once. Required.
    pub burst: NonZeroU32,
}

/// A limit as a map: one window, a list of windows, or both.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rates {
    /// Requests that one may make in `window`.
    #[serde(default)]
    max_requests: Option<NonZeroU32>,
    /// Length of that window.
    #[serde(default)]
    window: Option<Period>,
    /// More windows; all hold at once. Default none.
    #[serde(default)]
    windows: Vec<RateWindow>,
    /// A steady rate. Default none.
    #[serde(default)]
    bucket: Option<RateBucket>,
}

/// The same, and who counts.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SharedRates {
    /// Requests that one caller may make in `window`.
    #[serde(default)]
    max_requests: Option<NonZeroU32>,
    /// Length of that window.
    #[serde(default)]
    window: Option<Period>,
    /// More windows; all hold at once. Default none.
    #[serde(default)]
    windows: Vec<RateWindow>,
    /// A steady rate. Default none.
    #[serde(default)]
    bucket: Option<RateBucket>,
    /// Who counts, so that several nodes keep one limit together. Default: each node for itself.
    #[serde(default)]
    store: Option<RateLimitStoreConfig>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
struct Period(
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    Duration,
);

impl Rates {
    const fn is_empty(&self) -> bool {
        self.max_requests.is_none()
            && self.window.is_none()
            && self.windows.is_empty()
            && self.bucket.is_none()
    }
}

/// A map in the file that is a limit.
trait Whole {
    type Config: From<RateLimitConfig>;

    fn config<E: Error>(self) -> Result<Self::Config, E>;
}

impl Whole for Rates {
    type Config = RateLimitConfig;

    fn config<E: Error>(self) -> Result<RateLimitConfig, E> {
        let mut windows = match (self.max_requests, self.window) {
            (None, None) => Vec::new(),
            (Some(max_requests), Some(Period(window))) => vec![RateWindow {
                max_requests,
                window,
            }],
            (Some(_), None) => return Err(E::missing_field("window")),
            (None, Some(_)) => return Err(E::missing_field("max_requests")),
        };
        windows.extend(self.windows);
        if windows.len() > MAX_WINDOWS || windows.is_empty() && self.bucket.is_none() {
            return Err(wrong_count());
        }
        Ok(RateLimitConfig {
            windows,
            bucket: self.bucket,
        })
    }
}

impl Whole for SharedRates {
    type Config = CallerLimitConfig;

    fn config<E: Error>(self) -> Result<CallerLimitConfig, E> {
        let rates = Rates {
            max_requests: self.max_requests,
            window: self.window,
            windows: self.windows,
            bucket: self.bucket,
        };
        // A rate limit service has the limits; those here are shared out only.
        let needs_none = matches!(&self.store, Some(RateLimitStoreConfig::Rls(rls)) if rls.when_away != RlsWhenAway::LocalShare);
        let rates = if needs_none && rates.is_empty() {
            RateLimitConfig {
                windows: Vec::new(),
                bucket: None,
            }
        } else {
            rates.config()?
        };
        Ok(CallerLimitConfig {
            rates,
            store: self.store,
        })
    }
}

/// Reads a limit whose map form is `W`.
struct OneOrMany<W>(PhantomData<W>);

impl<'de, W: Deserialize<'de> + Whole> Visitor<'de> for OneOrMany<W> {
    type Value = W::Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ max_requests: …, window: … } or a list of these")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        W::deserialize(MapAccessDeserializer::new(map))?.config()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut windows = Vec::new();
        while let Some(window) = seq.next_element()? {
            windows.push(window);
        }
        if windows.is_empty() || windows.len() > MAX_WINDOWS {
            return Err(wrong_count());
        }
        let limit = RateLimitConfig {
            windows,
            bucket: None,
        };
        Ok(limit.into())
    }
}

fn one_or_many<W: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<RateWindow>();
    let whole = generator.subschema_for::<W>();
    json_schema!({
        "anyOf": [
            whole,
            { "type": "array", "items": one, "minItems": 1, "maxItems": MAX_WINDOWS },
        ],
    })
}

fn wrong_count<E: Error>() -> E {
    E::custom(format_args!(
        "needs 1 to {MAX_WINDOWS} windows, such as {{ max_requests: 100, window: 60s }}"
    ))
}

const fn second() -> Duration {
    Duration::from_secs(1)
}
