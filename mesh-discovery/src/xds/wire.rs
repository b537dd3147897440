//! Reading and writing the protobuf wire format, field by field, without building anything on the way.
//!
//! A message is read by going over its fields. Whoever reads one takes what it understands and hands every other field
//! to [`Ignored`](super::ignored::Ignored), so that nothing is ignored in silence, and nothing is allocated for it.
//!
//! # Sources
//!
//! Protocol Buffers, "Encoding": varints, tags and wire types. Groups (wire types 3 and 4) do not exist in proto3 and
//! are refused. As there, a field that appears again replaces a scalar and is merged into a message.

use std::fmt;
use std::str;

use super::fields::Message;

/// What is wrong in a message, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Full name of the field, or of the message.
    pub(super) field: String,
    /// What is wrong with it.
    pub(super) reason: String,
}

impl Wrong {
    pub(super) fn new(message: &Message, tag: u32, reason: impl Into<String>) -> Self {
        Self {
            field: message.field(tag),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.reason)
    }
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    message: &'static Message,
    pub(super) tag: u32,
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Field<'a> {
    /// Full name of the field.
    pub(super) fn name(&self) -> String {
        self.message.field(self.tag)
    }

    pub(super) fn message_name(&self) -> &'static str {
        self.message.name
    }

    /// That something is wrong with this field.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Wrong {
        Wrong::new(self.message, self.tag, reason)
    }

    pub(super) fn bytes(&self) -> Result<&'a [u8], Wrong> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong("is not of the type that it should be")),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, Wrong> {
        str::from_utf8(self.bytes()?)
            .ok()
            .ok_or_else(|| self.wrong("is not UTF-8"))
    }

    pub(super) fn uint64(&self) -> Result<u64, Wrong> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(self.wrong("is not of the type that it should be")),
        }
    }

    /// A number of 32 bits; more bits than that are refused rather than cut off.
    pub(super) fn uint32(&self) -> Result<u32, Wrong> {
        u32::try_from(self.uint64()?)
            .ok()
            .ok_or_else(|| self.wrong("is larger than 2^32-1"))
    }

    pub(super) fn double(&self) -> Result<f64, Wrong> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(self.wrong("is not of the type that it should be")),
        }
    }
}

/// Goes over the fields of a message. The first error is the last item.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    message: &'static Message,
    rest: &'a [u8],
}

/// The fields of `bytes`, which are a message of this kind.
pub(super) fn fields<'a>(message: &'static Message, bytes: &'a [u8]) -> Fields<'a> {
    Fields {
        message,
        rest: bytes,
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<Field<'a>> {
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag != 0)?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return None,
        };
        Some(Field {
            message: self.message,
            tag,
            value,
        })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| Wrong {
            field: self.message.name.to_owned(),
            reason: "is no protobuf message".to_owned(),
        }))
    }
}

/// A message that is written; empty texts and messages and zeros are left out, as proto3 has it.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(tag, text.as_bytes());
        }
    }

    pub(super) fn uint64(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.varint(u64::from(tag) << 3);
            self.varint(number);
        }
    }

    /// A field of bytes or a message, also when that is empty: an element of a list may be.
    pub(super) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.varint(u64::from(tag) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// An inner message.
    pub(super) fn message(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(tag, &inner.0);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push((number & 0x7f) as u8);
    }
}

#[cfg(test)]
mod tests;
