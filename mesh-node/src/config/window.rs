//! The rate limit: one window, or a list of windows that all hold at once.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use super::value;

/// Requests that one caller may make: windows that all hold at once.
///
/// In the file it is one window (`{ max_requests: 100, window: 60s }`) or a list of them.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RateLimitConfig {
    /// The windows, at least one and at most [`RateLimitConfig::MAX_WINDOWS`].
    pub windows: Vec<RateWindow>,
}

impl RateLimitConfig {
    /// Most windows in one limit: each costs a counter per caller and a check per request.
    pub const MAX_WINDOWS: usize = 8;

    /// The windows of DESIGN section 7: 100 a minute and 10,000 an hour.
    pub fn recommended() -> Self {
        Self {
            windows: vec![
                RateWindow {
                    max_requests: value::nonzero(100),
                    window: Duration::from_mins(1),
                },
                RateWindow {
                    max_requests: value::nonzero(10_000),
                    window: Duration::from_hours(1),
                },
            ],
        }
    }
}

impl<'de> Deserialize<'de> for RateLimitConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for RateLimitConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RateLimitConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<RateWindow>();
        json_schema!({
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": Self::MAX_WINDOWS }],
        })
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

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = RateLimitConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ max_requests: …, window: … } or a list of these")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let window = RateWindow::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RateLimitConfig {
            windows: vec![window],
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut windows = Vec::new();
        while let Some(window) = seq.next_element()? {
            windows.push(window);
        }
        if windows.is_empty() || windows.len() > RateLimitConfig::MAX_WINDOWS {
            return Err(serde::de::Error::custom(format_args!(
                "needs 1 to {} windows, such as {{ max_requests: 100, window: 60s }}",
                RateLimitConfig::MAX_WINDOWS
            )));
        }
        Ok(RateLimitConfig { windows })
    }
}
