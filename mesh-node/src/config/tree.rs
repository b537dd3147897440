//! The file as a tree in which every key and value knows its place.
//!
//! Made from the events of a YAML parser rather than through its serde layer, because a value must keep its text
//! (`0123` is a fine service name) and its place until the struct it goes into is known.

use std::collections::HashMap;

use granit_parser::Event;
use granit_parser::Parser;
use granit_parser::ScalarStyle;
use granit_parser::Span;
use zeroize::Zeroizing;

use super::error::ConfigError;
use super::error::Place;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// The variable that the text came from; such a text is never shown.
    pub(super) variable: Option<String>,
}

/// What a value is.
#[derive(Clone)]
pub(super) enum Kind {
    Null,
    Scalar(Zeroizing<String>),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Scalar(_) => f.write_str("Scalar(…)"),
            Self::List(items) => f.debug_list().entries(items).finish(),
            Self::Map(entries) => f
                .debug_map()
                .entries(entries.iter().map(|(key, node)| (&key.text, node)))
                .finish(),
        }
    }
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

impl Node {
    /// Reads `text`, the content of `file`: one document, string keys, no key twice, no tags.
    pub(super) fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let mut builder = Builder {
            file,
            anchors: HashMap::new(),
            open: Vec::new(),
            root: None,
            nodes: 0,
        };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let mark = error.marker();
                let place = Place::Position {
                    line: mark.line(),
                    column: mark.col() + 1,
                };
                ConfigError::new(file, place, "", format!("is not YAML: {}", error.info()))
            })?;
            builder.take(event, span)?;
        }
        let empty = Self {
            place: Place::Position { line: 1, column: 1 },
            kind: Kind::Map(Vec::new()),
            variable: None,
        };
        match builder.root {
            Some(Self {
                kind: Kind::Null, ..
            })
            | None => Ok(empty),
            Some(root) => Ok(root),
        }
    }

    /// The value of `key` in a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|(name, _)| name.text == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The place of a key path such as `policy.rules[2].from`, or of its nearest parent that is there.
    pub(super) fn place_of(&self, path: &str) -> Place {
        let mut here = self;
        for part in path.split('.') {
            let mut steps = part.split('[');
            let found = steps.next().and_then(|name| here.get(name));
            let Some(mut next) = found else { break };
            for index in steps {
                let index = index.trim_end_matches(']').parse::<usize>().ok();
                let Kind::List(items) = &next.kind else { break };
                let Some(item) = index.and_then(|index| items.get(index)) else {
                    break;
                };
                next = item;
            }
            here = next;
        }
        here.place.clone()
    }

    /// Puts `text` at `path`, making the maps on the way; says at which key something else than a map is in the way.
    pub(super) fn set<'p>(
        &mut self,
        path: &'p [String],
        text: &str,
        variable: &str,
    ) -> Result<(), &'p str> {
        let place = Place::Variable(variable.to_owned());
        let mut here = self;
        for name in path {
            let Kind::Map(entries) = &mut here.kind else {
                return Err(name);
            };
            let index = match entries.iter().position(|(key, _)| key.text == *name) {
                Some(index) => index,
                None => {
                    let key = Key {
                        text: name.clone(),
                        place: place.clone(),
                    };
                    let kind = Kind::Map(Vec::new());
                    entries.push((
                        key,
                        Self {
                            place: place.clone(),
                            kind,
                            variable: None,
                        },
                    ));
                    entries.len() - 1
                }
            };
            here = &mut entries[index].1;
        }
        here.kind = Kind::Scalar(Zeroizing::new(text.to_owned()));
        here.place = place;
        here.variable = Some(variable.to_owned());
        Ok(())
    }

    /// How a message speaks of the value.
    pub(super) fn shown(&self) -> String {
        match (&self.variable, &self.kind) {
            (Some(name), _) => format!("the value of {name}"),
            (None, Kind::Scalar(text)) if text.chars().count() <= LONGEST_SHOWN => {
                format!("{:?}", text.as_str())
            }
            (None, _) => "the value".to_owned(),
        }
    }
}

/// Puts the parser's events together.
struct Builder<'a> {
    file: &'a str,
    anchors: HashMap<usize, Node>,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

/// A list or map whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Key>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ConfigError> {
        let place = Place::Position {
            line: span.start.line(),
            column: span.start.col() + 1,
        };
        if event.tag().is_some() {
            return Err(self.refuse(place, "tags such as !!str are not supported; remove it"));
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if is_null {
                    Kind::Null
                } else {
                    Kind::Scalar(Zeroizing::new(text.into_owned()))
                };
                self.close(
                    Node {
                        place,
                        kind,
                        variable: None,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, _) => self.open(place, Kind::List(Vec::new()), anchor),
            Event::MappingStart(_, anchor, _) => self.open(place, Kind::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.close(node, anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = node.clone();
                    self.nodes += size(&node);
                    self.close(node, 0)
                }
                None => Err(self.refuse(
                    place,
                    "an alias must name an anchor that is complete before it",
                )),
            },
            Event::DocumentStart(..) if self.root.is_some() => Err(self.refuse(
                place,
                "a second document begins here; a configuration is one document",
            )),
            _ => Ok(()),
        }
    }

    fn open(&mut self, place: Place, kind: Kind, anchor: usize) -> Result<(), ConfigError> {
        if self.open.len() >= DEPTH {
            return Err(self.refuse(place, "is nested too deep; 32 levels are allowed"));
        }
        self.open.push(Open {
            node: Node {
                place,
                kind,
                variable: None,
            },
            anchor,
            key: None,
        });
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), ConfigError> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(self.refuse(
                node.place,
                "the file is too large; 200000 values are allowed",
            ));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node.kind, parent.key.take()) {
            (Kind::Map(entries), Some(key)) => entries.push((key, node)),
            (Kind::Map(entries), None) => {
                let Kind::Scalar(text) = &node.kind else {
                    return Err(self.refuse(node.place, "a key must be a plain name"));
                };
                if entries.len() >= KEYS {
                    return Err(self.refuse(node.place, "has too many keys; 256 are allowed"));
                }
                if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == **text) {
                    let before = match first.place {
                        Place::Position { line, .. } => format!("; it is also on line {line}"),
                        _ => String::new(),
                    };
                    let message = format!("the key {:?} is here twice{before}", text.as_str());
                    return Err(self.refuse(node.place, message));
                }
                parent.key = Some(Key {
                    text: text.to_string(),
                    place: node.place,
                });
            }
            (Kind::List(items), _) => items.push(node),
            _ => {}
        }
        Ok(())
    }

    fn refuse(&self, place: Place, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.file, place, "", message)
    }
}

/// Values in `node`, itself included.
fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, node)| size(node)).sum::<usize>(),
        _ => 1,
    }
}

/// The schema needs seven; it also bounds every recursion over the tree.
const DEPTH: usize = 32;
/// Ten times what any map here has; each new key is compared with all before it.
const KEYS: usize = 256;
/// About what fits into the largest file that is read; it stops an alias bomb.
const NODES: usize = 200_000;
/// Longer values would hide the message.
const LONGEST_SHOWN: usize = 60;
