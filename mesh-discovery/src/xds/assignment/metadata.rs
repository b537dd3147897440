//! What the metadata of an endpoint says under the key `mesh`.

use std::collections::BTreeMap;

use crate::endpoint::Endpoint;
use crate::metadata;
use crate::xds::fields::MAP_ENTRY;
use crate::xds::fields::METADATA;
use crate::xds::fields::Message;
use crate::xds::fields::STRUCT;
use crate::xds::fields::STRUCT_ENTRY;
use crate::xds::fields::VALUE;
use crate::xds::ignored::Ignored;
use crate::xds::wire::Wrong;
use crate::xds::wire::fields;

/// The pairs that were found.
#[derive(Debug, Default)]
pub(super) struct Found<'a>(BTreeMap<&'a str, String>);

impl<'a> Found<'a> {
    /// Reads a `core.v3.Metadata`.
    pub(super) fn merge(&mut self, bytes: &'a [u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&METADATA, bytes) {
            let field = field?;
            match field.tag {
                1 => {
                    let (key, value) = entry(&MAP_ENTRY, field.bytes()?)?;
                    if key == FILTER {
                        self.merge_struct(value, ignored)?;
                    } else {
                        ignored.note(&field);
                    }
                }
                _ => ignored.note(&field),
            }
        }
        Ok(())
    }

    fn merge_struct(&mut self, bytes: &'a [u8], ignored: &mut Ignored) -> Result<(), Wrong> {
        for field in fields(&STRUCT, bytes) {
            let field = field?;
            if field.tag != 1 {
                ignored.note(&field);
                continue;
            }
            let (key, value) = entry(&STRUCT_ENTRY, field.bytes()?)?;
            for inner in fields(&VALUE, value) {
                let inner = inner?;
                let text = match inner.tag {
                    2 => inner.double()?.to_string(),
                    3 => inner.text()?.to_owned(),
                    4 => (inner.uint64()? != 0).to_string(),
                    _ => {
                        ignored.note(&inner);
                        continue;
                    }
                };
                if self.0.len() >= MAX_PAIRS && !self.0.contains_key(key) {
                    return Err(field.wrong(format!("has more than {MAX_PAIRS} pairs")));
                }
                self.0.insert(key, text);
            }
        }
        Ok(())
    }

    /// Puts what was found into the endpoint.
    pub(super) fn apply(self, endpoint: &mut Endpoint) -> Result<(), Wrong> {
        let pairs = self
            .0
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        metadata::apply(pairs, endpoint)
            .map_err(|error| Wrong::new(&METADATA, 1, format!("is of no use: {error}")))
    }
}

/// Key and value of an entry of a map, where the value is a message.
fn entry<'a>(message: &'static Message, bytes: &'a [u8]) -> Result<(&'a str, &'a [u8]), Wrong> {
    let (mut key, mut value): (&str, &[u8]) = ("", &[]);
    for field in fields(message, bytes) {
        let field = field?;
        match field.tag {
            1 => key = field.text()?,
            2 => value = field.bytes()?,
            _ => return Err(field.wrong("is no part of a map")),
        }
    }
    Ok((key, value))
}

/// What the endpoint's metadata has to say to a mesh stands under this key.
const FILTER: &str = "mesh";
/// As many as an endpoint may have.
const MAX_PAIRS: usize = 64;
