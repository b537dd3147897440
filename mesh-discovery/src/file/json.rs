//! JSON as a tree.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use super::tree::Flaw;
use super::tree::Kind;
use super::tree::MAX_DEPTH;
use super::tree::MAX_NODES;
use super::tree::Node;
use super::tree::Place;

/// Reads one document; none where there is nothing.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Flaw> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
        Flaw::new(format!("is not JSON: {error}")).at(Place {
            line: error.line().max(1),
            column: error.column().max(1),
        })
    })?;
    let mut builder = Builder {
        rest: text,
        place: Place { line: 1, column: 1 },
        nodes: 0,
    };
    builder.node(whole, 0).map(Some)
}

/// Goes through the text from its beginning to its end.
struct Builder<'a> {
    /// What is behind `place`.
    rest: &'a str,
    place: Place,
    nodes: usize,
}

impl<'a> Builder<'a> {
    /// A value that is a part of the rest of the text, which is JSON as a whole.
    fn node(&mut self, raw: &'a RawValue, depth: usize) -> Result<Node, Flaw> {
        let text = raw.get();
        let place = self.advance(text);
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Flaw::new(TOO_MANY).at(place));
        }
        if depth > MAX_DEPTH {
            return Err(Flaw::new("is nested too deep; 8 levels are read").at(place));
        }
        let kind = match text.as_bytes().first() {
            Some(b'{') => {
                let Parts::<'a>(parts) = again(text, place)?;
                let entries = parts.into_iter().map(|(key, value)| {
                    let node = self.node(value, depth + 1)?;
                    Ok((key, node))
                });
                Kind::Map(entries.collect::<Result<_, Flaw>>()?)
            }
            Some(b'[') => {
                let Parts::<'a>(parts) = again(text, place)?;
                let items = parts
                    .into_iter()
                    .map(|(_, value)| self.node(value, depth + 1));
                Kind::List(items.collect::<Result<_, Flaw>>()?)
            }
            Some(b'"') => Kind::Quoted(again(text, place)?),
            _ if text == "null" => Kind::Null,
            _ => Kind::Plain(text.to_owned()),
        };
        Ok(Node { place, kind })
    }

    /// Where `part` begins; whatever is before it is passed by.
    fn advance(&mut self, part: &str) -> Place {
        let offset = part
            .as_ptr()
            .addr()
            .saturating_sub(self.rest.as_ptr().addr());
        if let Some((before, rest)) = self.rest.split_at_checked(offset) {
            for character in before.chars() {
                if character == '\n' {
                    self.place.line += 1;
                    self.place.column = 1;
                } else {
                    self.place.column += 1;
                }
            }
            self.rest = rest;
        }
        self.place
    }
}

/// Reads a part of what was read as a whole before.
fn again<'a, T: Deserialize<'a>>(text: &'a str, place: Place) -> Result<T, Flaw> {
    serde_json::from_str(text).map_err(|error| Flaw::new(error.to_string()).at(place))
}

/// The parts of a list, whose keys are empty, or of a map; a key that stands twice is there twice.
struct Parts<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartsVisitor).map(Self)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or a map")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while let Some(item) = items.next_element()? {
            if parts.len() >= MAX_NODES {
                return Err(A::Error::custom(TOO_MANY));
            }
            parts.push((String::new(), item));
        }
        Ok(parts)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            if parts.len() >= MAX_NODES {
                return Err(A::Error::custom(TOO_MANY));
            }
            parts.push(entry);
        }
        Ok(parts)
    }
}

const TOO_MANY: &str = "there are more than 500000 values";
