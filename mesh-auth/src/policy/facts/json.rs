//! Claims as JSON.

use serde_json::Value;

use crate::caller::ClaimValue;

/// A claim's value as somebody types it: what reads as JSON is that (`7`, `true`, `["a"]`, `"7"`), all else a text.
pub fn claim_of_text(text: &str) -> ClaimValue {
    let json = serde_json::from_str::<Value>(text);
    json.map_or_else(|_text| ClaimValue::from(text), |json| claim_of_json(&json))
}

pub(super) fn claim_to_json(value: &ClaimValue) -> Value {
    match value {
        ClaimValue::Null => Value::Null,
        ClaimValue::Bool(value) => Value::from(*value),
        ClaimValue::Int(number) => Value::from(*number),
        ClaimValue::Float(number) => Value::from(*number),
        ClaimValue::Text(text) => Value::from(&**text),
        ClaimValue::List(values) => values.iter().map(claim_to_json).collect(),
        ClaimValue::Map(values) => values
            .iter()
            .map(|(name, value)| (name.to_string(), claim_to_json(value)))
            .collect(),
    }
}

/// Recursion is bounded: the reader of JSON refuses more than 128 levels.
pub(super) fn claim_of_json(value: &Value) -> ClaimValue {
    match value {
        Value::Null => ClaimValue::Null,
        Value::Bool(value) => ClaimValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => ClaimValue::Int(number),
            None => ClaimValue::Float(number.as_f64().unwrap_or(f64::INFINITY)),
        },
        Value::String(text) => ClaimValue::Text(text.as_str().into()),
        Value::Array(values) => ClaimValue::List(values.iter().map(claim_of_json).collect()),
        Value::Object(values) => ClaimValue::Map(
            values
                .iter()
                .map(|(name, value)| (name.as_str().into(), claim_of_json(value)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_as_json_is_json_and_all_else_a_text() {
        assert_eq!(claim_of_text("7"), ClaimValue::Int(7));
        assert_eq!(claim_of_text("7.5"), ClaimValue::Float(7.5));
        assert_eq!(claim_of_text("true"), ClaimValue::Bool(true));
        assert_eq!(claim_of_text("null"), ClaimValue::Null);
        assert_eq!(claim_of_text("[\"a\"]"), ClaimValue::from(vec!["a"]));
        for text in ["acme", "", "[a]", "01", "1 2"] {
            assert_eq!(claim_of_text(text), ClaimValue::from(text));
        }
    }
}
