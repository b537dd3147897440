//! YAML as a tree.

use granit_parser::Event;
use granit_parser::Parser;
use granit_parser::ScalarStyle;
use granit_parser::Span;

use super::tree::Flaw;
use super::tree::Kind;
use super::tree::MAX_DEPTH;
use super::tree::MAX_NODES;
use super::tree::Node;
use super::tree::Place;

/// Reads one document without aliases and tags; none where there is nothing.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Flaw> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let mark = error.marker();
            Flaw::new(format!("is not YAML: {}", error.info())).at(Place {
                line: mark.line(),
                column: mark.col() + 1,
            })
        })?;
        let place = place(span);
        builder.take(event, place).map_err(|flaw| flaw.at(place))?;
    }
    Ok(builder.root)
}

fn place(span: Span) -> Place {
    Place {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

#[derive(Default)]
struct Builder {
    /// Lists and maps whose end has not come yet, and the key that waits for its value.
    open: Vec<(Node, Option<String>)>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Flaw> {
        if event.tag().is_some() {
            return Err(Flaw::new("tags such as !!str are not supported; remove it"));
        }
        match event {
            Event::Scalar(text, style, ..) => {
                let kind = match style {
                    ScalarStyle::Plain if is_null(&text) => Kind::Null,
                    ScalarStyle::Plain => Kind::Plain(text.into_owned()),
                    _ => Kind::Quoted(text.into_owned()),
                };
                self.close(Node { place, kind })
            }
            Event::SequenceStart(..) => self.begin(place, Kind::List(Vec::new())),
            Event::MappingStart(..) => self.begin(place, Kind::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((node, _)) => self.close(node),
                None => Ok(()),
            },
            Event::Alias(..) => Err(Flaw::new("aliases are not supported; write it out")),
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Flaw::new("a second document begins here; one is read"))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, place: Place, kind: Kind) -> Result<(), Flaw> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Flaw::new("is nested too deep; 8 levels are read"));
        }
        self.open.push((Node { place, kind }, None));
        Ok(())
    }

    fn close(&mut self, node: Node) -> Result<(), Flaw> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Flaw::new("there are more than 500000 values"));
        }
        let Some((parent, key)) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.kind, key.take()) {
            (Kind::Map(entries), Some(key)) => entries.push((key, node)),
            (Kind::Map(_), None) => match node.kind {
                Kind::Plain(text) | Kind::Quoted(text) => *key = Some(text),
                _ => return Err(Flaw::new("a key must be a plain name")),
            },
            (Kind::List(items), _) => items.push(node),
            _ => {}
        }
        Ok(())
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
