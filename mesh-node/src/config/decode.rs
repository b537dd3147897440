//! From the tree to the structs: a serde deserializer whose every error knows its place and key.
//!
//! An error starts with a message alone. On its way out of the tree each level adds its key, and the innermost value
//! adds its place and, where a message is about it, itself.

use std::fmt;

use serde::de;
use serde::de::DeserializeOwned;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::EnumAccess;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Unexpected;
use serde::de::VariantAccess;
use serde::de::Visitor;
use serde::de::value::StrDeserializer;

use super::error::ConfigError;
use super::error::Place;
use super::error::did_you_mean;
use super::tree::Key;
use super::tree::Kind;
use super::tree::Node;

/// Fills a `T` from `root`.
pub(super) fn decode<T: DeserializeOwned>(root: &Node, file: &str) -> Result<T, ConfigError> {
    T::deserialize(Value(root)).map_err(|error| {
        let error = error.at(root);
        let key = error.key();
        let message = error.message;
        ConfigError::new(file, error.place.unwrap_or(Place::File), &key, message)
    })
}

/// Values of the full design that this version does not have yet.
const LATER_VALUES: [&str; 6] = ["workload_api", "consul", "etcd", "dns", "xds", "spire"];

/// Enums whose variants are maps with keys of their own, and the key beside those that names the variant.
const TAGGED: [(&str, &str); 2] = [("RateLimitStoreConfig", "mode"), ("SourceConfig", "mode")];

/// What is wrong, on its way out of the tree.
#[derive(Debug)]
struct Error {
    message: String,
    /// Whether the message is a predicate that needs its value in front.
    is_about_value: bool,
    place: Option<Place>,
    /// Keys from the innermost to the outermost.
    path: Vec<String>,
}

impl Error {
    fn new(message: String) -> Self {
        Self {
            message,
            is_about_value: false,
            place: None,
            path: Vec::new(),
        }
    }

    /// Adds the place of `node`, if none is known yet.
    fn at(mut self, node: &Node) -> Self {
        if self.place.is_none() {
            self.place = Some(node.place.clone());
            if self.is_about_value && matches!(node.kind, Kind::Scalar(_)) {
                self.message = format!("{} {}", node.shown(), self.message);
            }
        }
        self
    }

    /// Adds the key that `node` stands behind.
    fn behind(self, key: &Key, node: &Node) -> Self {
        let mut error = if SECRET_KEYS.contains(&key.text.as_str()) && node.variable.is_none() {
            let place = self.place.clone().unwrap_or_else(|| node.place.clone());
            let message = if self.place.is_none() {
                format!("the value {}", self.message)
            } else {
                self.message
            };
            Self {
                place: Some(place),
                message,
                ..self
            }
        } else {
            self.at(node)
        };
        error.path.push(key.text.clone());
        error
    }

    fn key(&self) -> String {
        let mut key = String::new();
        for part in self.path.iter().rev() {
            if !key.is_empty() && !part.starts_with('[') {
                key.push('.');
            }
            key.push_str(part);
        }
        key
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            is_about_value: true,
            ..Self::new(message.to_string())
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Map => "a map stands here",
            Unexpected::Seq => "a list stands here",
            Unexpected::Str(_) => "a single value stands here",
            _ => "another kind of value stands here",
        };
        Self::new(format!(
            "{found}; expected {}",
            plain(&expected.to_string())
        ))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        de::Error::custom(format_args!(
            "is out of range; expected {}",
            plain(&expected.to_string())
        ))
    }

    fn unknown_variant(variant: &str, allowed: &'static [&'static str]) -> Self {
        let near = did_you_mean(variant, allowed);
        let what = if LATER_VALUES.contains(&variant) {
            "is not in this version"
        } else {
            "is not known here"
        };
        de::Error::custom(format_args!(
            "{what}{near}{} allowed here: {}",
            joint(&near),
            allowed.join(", ")
        ))
    }

    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Self {
        let near = did_you_mean(field, allowed);
        Self::new(format!(
            "unknown key{near}{} allowed here: {}",
            joint(&near),
            allowed.join(", ")
        ))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the required key \"{field}\" is missing"))
    }
}

/// What stands between a suggestion, which ends in a question mark, and what follows.
fn joint(near: &str) -> &'static str {
    if near.is_empty() { ";" } else { "" }
}

/// serde's words for what it expected, as a person would say it.
fn plain(expected: &str) -> String {
    let words = match expected {
        "a nonzero u16" => "a whole number from 1 to 65535",
        "u16" => "a whole number from 0 to 65535",
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        "a nonzero usize" => "a whole number from 1",
        "u32" => "a whole number from 0 to 4294967295",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a map of keys and values",
        other if other.starts_with("enum ") => "one of its names",
        other => other,
    };
    words.to_owned()
}

/// Keys whose value is never shown.
const SECRET_KEYS: [&str; 3] = ["secret", "token", "password"];

/// One value of the tree.
#[derive(Clone, Copy)]
struct Value<'a>(&'a Node);

impl<'a> Value<'a> {
    fn scalar(self, expected: &dyn de::Expected) -> Result<&'a str, Error> {
        match &self.0.kind {
            Kind::Scalar(text) => Ok(text),
            Kind::Null => Err(self.empty()),
            Kind::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, expected)),
            Kind::Map(_) => Err(de::Error::invalid_type(Unexpected::Map, expected)),
        }
    }

    fn number<T: std::str::FromStr>(self, expected: &dyn de::Expected) -> Result<T, Error> {
        let text = self.scalar(expected)?;
        let expected = plain(&expected.to_string());
        text.parse()
            .ok()
            .ok_or_else(|| de::Error::custom(format_args!("is not a number; expected {expected}")))
    }

    fn empty(self) -> Error {
        Error::new("has no value; give it one or remove the key".to_owned()).at(self.0)
    }
}

/// The integer methods differ in nothing but the visitor's method; serde's `forward_to_deserialize_any` cannot be used
/// for them, because a text must be read as what the field asks for.
impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Null => Err(self.empty()),
            Kind::Scalar(text) => visitor.visit_str(text),
            Kind::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Kind::Map(entries) => visitor.visit_map(Entries::all(entries)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.scalar(&visitor)? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(de::Error::custom("is neither true nor false")),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.number(&visitor)?;
        visitor.visit_i64(number)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.number(&visitor)?;
        visitor.visit_u64(number)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.number(&visitor)?;
        visitor.visit_f64(number)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.scalar(&visitor)?;
        visitor.visit_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    /// A key that is there has a value: leaving it empty is an error, never "none".
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// Only maps: serde would also fill a struct from a list, by position.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Map(entries) => visitor.visit_map(Entries::all(entries)),
            Kind::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            Kind::Scalar(text) => Err(de::Error::invalid_type(Unexpected::Str(text), &visitor)),
            Kind::Null => Err(self.empty()),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some((_, tag)) = TAGGED.iter().find(|(tagged, _)| *tagged == name) else {
            let name = self.scalar(&visitor)?;
            return visitor.visit_enum(Name(name));
        };
        let Kind::Map(entries) = &self.0.kind else {
            let expected = &"a map of keys and values";
            self.scalar(expected)?;
            return Err(de::Error::invalid_type(Unexpected::Str(""), expected));
        };
        let named = entries.iter().find(|(key, _)| key.text == *tag);
        let (key, node) = named.ok_or_else(|| de::Error::missing_field(tag))?;
        visitor.visit_enum(Variant {
            entries,
            tag: key,
            name: node,
        })
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.get(self.next) else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        let value = seed.deserialize(Value(node)).map_err(|error| {
            let mut error = error.at(node);
            error.path.push(format!("[{index}]"));
            error
        })?;
        Ok(Some(value))
    }
}

struct Entries<'a> {
    list: &'a [(Key, Node)],
    next: usize,
    /// The key that was read before: it names the variant that the others belong to.
    tag: Option<&'a str>,
}

impl<'a> Entries<'a> {
    fn all(entries: &'a [(Key, Node)]) -> Self {
        Self {
            list: entries,
            next: 0,
            tag: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let is_tag = |(key, _): &(Key, Node)| self.tag == Some(key.text.as_str());
        if self.list.get(self.next).is_some_and(is_tag) {
            self.next += 1;
        }
        let Some((key, _)) = self.list.get(self.next) else {
            return Ok(None);
        };
        let name = seed
            .deserialize(StrDeserializer::<Error>::new(&key.text))
            .map_err(|mut error| {
                error.place = Some(key.place.clone());
                error.path.push(key.text.clone());
                error
            })?;
        Ok(Some(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, node) = self
            .list
            .get(self.next)
            .ok_or_else(|| Error::new("a value was read twice".to_owned()))?;
        self.next += 1;
        seed.deserialize(Value(node))
            .map_err(|error| error.behind(key, node))
    }
}

/// The name of an enum's variant.
struct Name<'a>(&'a str);

impl<'de> EnumAccess<'de> for Name<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((
            seed.deserialize(StrDeserializer::<Error>::new(self.0))?,
            self,
        ))
    }
}

impl<'de> VariantAccess<'de> for Name<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(Error::new("names no single value".to_owned()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::new("names no single value".to_owned()))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::new("names no single value".to_owned()))
    }
}

/// A variant that one key of a map names; the other keys are its own.
struct Variant<'a> {
    entries: &'a [(Key, Node)],
    tag: &'a Key,
    name: &'a Node,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = Value(self.name).scalar(&"one of its names");
        let variant = name.and_then(|name| seed.deserialize(StrDeserializer::<Error>::new(name)));
        match variant {
            Ok(variant) => Ok((variant, self)),
            Err(error) => Err(error.behind(self.tag, self.name)),
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Fields(Entries {
            tag: Some(&self.tag.text),
            ..Entries::all(self.entries)
        }))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::new("names no single value".to_owned()))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::new("names no single value".to_owned()))
    }
}

/// The keys of a variant.
struct Fields<'a>(Entries<'a>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.0)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
