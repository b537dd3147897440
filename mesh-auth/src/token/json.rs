//! JSON from outside, read strictly: no name twice in one object, no deep nesting, nothing behind the end.
//!
//! RFC 8259 section 4 leaves open what a repeated name means; two readers that disagree about it see two tokens.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use crate::caller::ClaimValue;

/// The members of one object, by name.
pub(super) type Object = BTreeMap<Box<str>, ClaimValue>;

/// Reads `bytes` as one object whose values nest at most [`MAX_DEPTH`] deep.
pub(super) fn object(bytes: &[u8]) -> Result<Object, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Nested { depth: 0 }.deserialize(&mut reader)?;
    reader.end()?;
    match value {
        ClaimValue::Map(object) => Ok(object),
        _ => Err(serde_json::Error::custom("it is not an object")),
    }
}

/// A value inside `depth` others.
#[derive(Clone, Copy)]
struct Nested {
    depth: u8,
}

impl Nested {
    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!(
                "values nest deeper than {MAX_DEPTH}"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = ClaimValue;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<ClaimValue, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = ClaimValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<ClaimValue, E> {
        let number = i64::try_from(number);
        let number =
            number.map_err(|_larger| E::custom("a whole number is larger than 2^63 - 1"))?;
        Ok(ClaimValue::Int(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ClaimValue, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(ClaimValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ClaimValue, A::Error> {
        let inner = self.inner()?;
        let mut object = Object::new();
        while let Some(name) = members.next_key::<Box<str>>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice in one object"));
            }
        }
        Ok(ClaimValue::Map(object))
    }
}

/// Tokens of large identity providers nest 3 or 4 deep.
const MAX_DEPTH: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        object(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_value_comes_out_as_it_stands() {
        let read = object(br#"{"a":null,"b":true,"c":-7,"d":1.5,"e":"x","f":[1,{"g":"h"}]}"#);
        let read = read.unwrap();
        let inner = Object::from([("g".into(), ClaimValue::from("h"))]);
        let expected = [
            ("a", ClaimValue::Null),
            ("b", ClaimValue::Bool(true)),
            ("c", ClaimValue::Int(-7)),
            ("d", ClaimValue::Float(1.5)),
            ("e", ClaimValue::from("x")),
            (
                "f",
                ClaimValue::List(vec![ClaimValue::Int(1), ClaimValue::Map(inner)]),
            ),
        ];
        assert_eq!(
            read,
            expected.map(|(name, value)| (name.into(), value)).into()
        );
    }

    // threat 17
    #[test]
    fn a_name_that_stands_twice_is_refused_at_every_depth() {
        assert!(refusal(r#"{"a":1,"a":1}"#).contains("twice"));
        assert!(refusal(r#"{"a":[{"b":1,"b":2}]}"#).contains("twice"));
        assert!(refusal(r#"{"a":1,"\u0061":1}"#).contains("twice"));
    }

    // threat 21
    #[test]
    fn deep_nesting_is_refused_without_recursion_to_the_end() {
        let deep =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        object(deep(7).as_bytes()).unwrap();
        assert!(refusal(&deep(8)).contains("deeper"));
        assert!(refusal(&format!("{{\"a\":{}", "[".repeat(100_000))).contains("deeper"));
    }

    #[test]
    fn what_is_no_object_or_goes_on_behind_it_is_refused() {
        for text in [
            "",
            "[]",
            "1",
            "{}{}",
            "{} x",
            "{\"a\":18446744073709551615}",
            "{\"a\":1",
        ] {
            object(text.as_bytes()).unwrap_err();
        }
    }
}
