//! A small document in which every value knows its place, and reading typed values out of it.

use std::collections::HashSet;
use std::fmt;

use serde::de;
use serde::de::DeserializeSeed;
use serde::de::IntoDeserializer as _;
use serde::de::Visitor;

/// Both from 1; columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// A text that can only be one.
    Quoted(String),
    /// A text that may also be a number or a truth value.
    Plain(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// What is wrong, and where that is known.
#[derive(Clone, Debug)]
pub(super) struct Flaw {
    pub(super) problem: String,
    pub(super) key: Option<String>,
    pub(super) place: Option<Place>,
}

impl Flaw {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            key: None,
            place: None,
        }
    }

    /// At this place, unless a closer one is known.
    pub(super) fn at(self, place: Place) -> Self {
        Self {
            place: self.place.or(Some(place)),
            ..self
        }
    }

    fn of(self, key: &str) -> Self {
        Self {
            key: self.key.or_else(|| Some(key.to_owned())),
            ..self
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Flaw {}

impl de::Error for Flaw {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::new(problem.to_string())
    }
}

impl Node {
    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        match self.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Quoted(text) => visitor.visit_string(text),
            Kind::Plain(text) => plain(text, visitor),
            Kind::List(items) => visitor.visit_seq(Items(items.into_iter())),
            Kind::Map(entries) => visitor.visit_map(Entries {
                rest: entries.into_iter(),
                seen: HashSet::new(),
                value: None,
            }),
        }
    }
}

/// The core schema, without octal and hexadecimal numbers.
fn plain<'de, V: Visitor<'de>>(text: String, visitor: V) -> Result<V::Value, Flaw> {
    if let Ok(number) = text.parse::<u64>() {
        return visitor.visit_u64(number);
    }
    if let Ok(number) = text.parse::<i64>() {
        return visitor.visit_i64(number);
    }
    match &*text {
        "true" | "True" | "TRUE" => visitor.visit_bool(true),
        "false" | "False" | "FALSE" => visitor.visit_bool(false),
        _ => match text.parse::<f64>() {
            Ok(number) if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                visitor.visit_f64(number)
            }
            _ => visitor.visit_string(text),
        },
    }
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = Flaw;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        let place = self.place;
        self.visit(visitor).map_err(|flaw| flaw.at(place))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        let place = self.place;
        let visited = match self.kind {
            // A service may be called 7, or true.
            Kind::Plain(text) => visitor.visit_string(text),
            _ => self.visit(visitor),
        };
        visited.map_err(|flaw| flaw.at(place))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.deserialize_string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        match self.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        let place = self.place;
        visitor
            .visit_newtype_struct(self)
            .map_err(|flaw| flaw.at(place))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum ignored_any
    }
}

struct Items(std::vec::IntoIter<Node>);

impl<'de> de::SeqAccess<'de> for Items {
    type Error = Flaw;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Flaw> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries {
    rest: std::vec::IntoIter<(String, Node)>,
    seen: HashSet<String>,
    value: Option<(String, Node)>,
}

impl<'de> de::MapAccess<'de> for Entries {
    type Error = Flaw;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Flaw> {
        let Some((key, node)) = self.rest.next() else {
            return Ok(None);
        };
        let place = node.place;
        if !self.seen.insert(key.clone()) {
            return Err(Flaw::new("the key is here twice").of(&key).at(place));
        }
        let name = key.clone();
        let told = seed
            .deserialize(name.into_deserializer())
            .map_err(|flaw: Flaw| flaw.of(&key).at(place))?;
        self.value = Some((key, node));
        Ok(Some(told))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Flaw> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| Flaw::new("a value without a key"))?;
        let place = node.place;
        seed.deserialize(node)
            .map_err(|flaw| flaw.of(&key).at(place))
    }
}

/// A list of maps of lists; it also bounds every recursion over a tree.
pub(super) const MAX_DEPTH: usize = 8;
/// Five for each of as many endpoints as there may be.
pub(super) const MAX_NODES: usize = 500_000;
