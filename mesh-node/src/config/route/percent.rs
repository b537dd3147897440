//! A share of calls, exact to a millionth.

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error as _;

/// A share of calls: 0 to 100 with at most four digits after the point.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Percent {
    millionths: u32,
}

impl Percent {
    /// Every call.
    pub const ALL: Self = Self { millionths: WHOLE };

    /// Reads a percentage: `10`, or `0.5`.
    ///
    /// # Errors
    ///
    /// A sentence fragment that says what the number is not.
    pub fn new(percent: f64) -> Result<Self, &'static str> {
        const EXPECTED: &str =
            "is not a percentage; write 0 to 100, with at most four digits after the point";
        let millionths = percent * 10_000.0;
        let rounded = millionths.round();
        if !(0.0..=100.0).contains(&percent) || (millionths - rounded).abs() > 1e-6 {
            return Err(EXPECTED);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 0 to a million"
        )]
        let millionths = rounded as u32;
        Ok(Self { millionths })
    }

    /// The share in millionths, 0 to 1,000,000.
    pub fn millionths(self) -> u32 {
        self.millionths
    }

    /// Whether a call for which `draw` was drawn, evenly among all numbers, is in the share.
    pub fn takes(self, draw: u64) -> bool {
        // As in Lemire, "Fast random integer generation in an interval" (2019): the upper half of the product is even
        // but for one part in 2^44.
        let among_a_million = (u128::from(draw) * u128::from(WHOLE)) >> 64;
        among_a_million < u128::from(self.millionths)
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", f64::from(self.millionths) / 10_000.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.millionths) / 10_000.0)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 100 })
    }
}

const WHOLE: u32 = 1_000_000;
