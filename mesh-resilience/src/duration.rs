//! Durations as people write them (`60s`, `1h 30m`) in serialised configuration: for serde's attribute
//! `#[serde(with = "mesh_resilience::duration")]`.

use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

/// Writes a duration as text.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads a duration from text.
///
/// # Errors
///
/// The deserializer's "invalid value" for text that is no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Text)
}

/// The same for a duration that may be absent.
pub mod option {
    use std::time::Duration;

    use serde::de::Deserializer;
    use serde::ser::Serializer;

    /// Writes a duration as text, or nothing.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration from text.
    ///
    /// # Errors
    ///
    /// The deserializer's "invalid value" for text that is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a duration such as 30s or 1h")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        // serde's errors keep no source; the text and what was expected of it say enough.
        match humantime::parse_duration(text) {
            Ok(duration) => Ok(duration),
            Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}
