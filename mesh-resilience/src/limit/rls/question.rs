//! What a rate limit service is asked, within bounds.

use prost::Message as _;

use super::messages;
use super::unit::Unit;
use crate::error::BoxError;

/// May these calls pass? Each descriptor is counted on its own, and all must allow it.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Whose rules apply.
    pub domain: String,
    /// What the calls are.
    pub descriptors: Vec<Descriptor>,
    /// How many calls they are. Default 1.
    pub hits: u32,
}

impl Question {
    /// Asks about one call.
    pub fn new(domain: impl Into<String>, descriptors: Vec<Descriptor>) -> Self {
        Self {
            domain: domain.into(),
            descriptors,
            hits: 1,
        }
    }

    /// Asks about `hits` calls at once; 0 counts as 1.
    #[must_use]
    pub fn with_hits(self, hits: u32) -> Self {
        Self { hits, ..self }
    }

    /// Reads a `RateLimitRequest` as it comes over the wire.
    ///
    /// # Errors
    ///
    /// [`QuestionError`].
    pub fn decode(message: &[u8]) -> Result<Self, QuestionError> {
        let message = messages::RateLimitRequest::decode(message);
        let message = message.map_err(|source| QuestionError::Malformed {
            source: source.into(),
        })?;
        Self::from_message(message)
    }

    pub(super) fn from_message(message: messages::RateLimitRequest) -> Result<Self, QuestionError> {
        if message.domain.is_empty() {
            return Err(QuestionError::NoDomain);
        }
        text("the domain", &message.domain)?;
        if message.descriptors.is_empty() {
            return Err(QuestionError::NoDescriptor);
        }
        bound("descriptors", message.descriptors.len(), MAX_DESCRIPTORS)?;
        let descriptors = message.descriptors.into_iter();
        Ok(Self {
            domain: message.domain,
            descriptors: descriptors
                .map(Descriptor::from_message)
                .collect::<Result<_, _>>()?,
            hits: message.hits_addend.max(1),
        })
    }

    pub(super) fn into_message(self) -> messages::RateLimitRequest {
        let descriptors = self.descriptors.into_iter();
        messages::RateLimitRequest {
            domain: self.domain,
            descriptors: descriptors.map(Descriptor::into_message).collect(),
            hits_addend: self.hits,
        }
    }
}

/// What a call is, from the general to the particular: a list of keys with values.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Descriptor {
    /// The keys with their values, in order.
    pub entries: Vec<Entry>,
    /// A limit that applies in place of the service's own rules: so many calls in a unit.
    pub limit: Option<(u32, Unit)>,
    /// How many calls this descriptor counts, where that is not what the question says; 0 asks and counts nothing.
    pub hits: Option<u64>,
}

impl Descriptor {
    /// A descriptor of these entries.
    pub const fn new(entries: Vec<Entry>) -> Self {
        Self {
            entries,
            limit: None,
            hits: None,
        }
    }

    fn from_message(message: messages::RateLimitDescriptor) -> Result<Self, QuestionError> {
        if message.entries.is_empty() {
            return Err(QuestionError::NoEntry);
        }
        bound(
            "entries in a descriptor",
            message.entries.len(),
            MAX_ENTRIES,
        )?;
        let limit = message.limit.map(|limit| {
            let unit = Unit::from_wire(limit.unit).filter(|unit| *unit != Unit::Week);
            let unit = unit.ok_or(QuestionError::Unit { number: limit.unit })?;
            Ok((limit.requests_per_unit, unit))
        });
        let entries = message.entries.into_iter().map(|entry| {
            if entry.key.is_empty() {
                return Err(QuestionError::NoKey);
            }
            text("a key", &entry.key)?;
            text("a value", &entry.value)?;
            Ok(Entry::new(entry.key, entry.value))
        });
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            limit: limit.transpose()?,
            hits: message.hits_addend.map(|hits| hits.value),
        })
    }

    fn into_message(self) -> messages::RateLimitDescriptor {
        let entries = self.entries.into_iter();
        messages::RateLimitDescriptor {
            entries: entries
                .map(|Entry { key, value }| messages::DescriptorEntry { key, value })
                .collect(),
            limit: self
                .limit
                .map(|(requests_per_unit, unit)| messages::RateLimitOverride {
                    requests_per_unit,
                    unit: unit.to_wire(),
                }),
            hits_addend: self.hits.map(|value| messages::UInt64Value { value }),
        }
    }
}

/// A key with its value.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Entry {
    /// The key, not empty.
    pub key: String,
    /// The value; may be empty.
    pub value: String,
}

impl Entry {
    /// A key with its value.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }
}

/// Why a question is not answered: whoever asked is at fault.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// It is no such message.
    #[error("the question is no RateLimitRequest")]
    Malformed {
        /// Why.
        source: BoxError,
    },
    /// It names no domain.
    #[error("the question names no domain")]
    NoDomain,
    /// It has no descriptor.
    #[error("the question has no descriptor")]
    NoDescriptor,
    /// A descriptor has no entry.
    #[error("a descriptor has no entry")]
    NoEntry,
    /// An entry has no key.
    #[error("an entry has no key")]
    NoKey,
    /// There is too much of something.
    #[error("{count} {what} are too many, at most {max} are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are taken.
        max: usize,
    },
    /// A text is too long.
    #[error("{what} is {length} bytes long, at most {max} are taken")]
    TooLong {
        /// Which.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// How much is taken.
        max: usize,
    },
    /// A descriptor's own limit is in a unit that there is not.
    #[error("{number} is no unit of a limit")]
    Unit {
        /// The unit's number.
        number: i32,
    },
}

fn text(what: &'static str, text: &str) -> Result<(), QuestionError> {
    if text.len() > MAX_TEXT {
        return Err(QuestionError::TooLong {
            what,
            length: text.len(),
            max: MAX_TEXT,
        });
    }
    Ok(())
}

fn bound(what: &'static str, count: usize, max: usize) -> Result<(), QuestionError> {
    if count > max {
        return Err(QuestionError::TooMany { what, count, max });
    }
    Ok(())
}

/// Envoy sends one descriptor for each `rate_limits` of a route and its virtual host.
pub(super) const MAX_DESCRIPTORS: usize = 64;
/// One entry for each action.
pub(super) const MAX_ENTRIES: usize = 32;
/// A long path or token as value.
pub(super) const MAX_TEXT: usize = 4096;
/// Bytes of a message, asked or answered.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
