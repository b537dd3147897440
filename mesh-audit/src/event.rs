//! What is recorded: an event, written as JSON members while it is built.
//!
//! The strings of a request must be copied out of it anyway, so [`Event::with`] escapes them while
//! copying and nothing between the request and the line is built. Sequence number, time and hashes
//! are added by the writer.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::error::ParseError;

mod escape;

use escape::Escaper;

/// What an event is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A connection was opened, refused or closed.
    Connection,
    /// A request or message was decided on.
    Message,
    /// Something failed.
    Error,
    /// A key, certificate or secret was replaced.
    KeyRotation,
    /// Something about the node or the log itself.
    Notice,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Connection,
        Self::Message,
        Self::Error,
        Self::KeyRotation,
        Self::Notice,
    ];

    /// The word in the file and in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Message => "message",
            Self::Error => "error",
            Self::KeyRotation => "key_rotation",
            Self::Notice => "notice",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(ParseError::Kind)
    }
}

/// The value of a field: a JSON scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// `null`; also what a float that is no number becomes.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0.
    Unsigned(u64),
    /// A whole number.
    Signed(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Text(&'a str),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Self::Signed(number.into())
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Signed(number)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value<'_> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One thing that happened, ready to be appended.
///
/// Fields keep their order. Nothing that a caller or a peer puts into one can break the line or
/// the terminal that shows it: control characters, line separators and characters that change
/// the direction of text are escaped.
///
/// - A text is cut at [`Event::MAX_TEXT_BYTES`]; the field `NAME.cut` then says how many bytes are
///   missing.
/// - A name that is taken, by an earlier field or by the log itself (`seq`, `time`, `event`,
///   `synced`, `notice`, `omitted`, `prev`, `hash`), gets a `_` appended. Other characters than ASCII
///   letters, digits, `_`, `-` and `.` become `_`; names are cut at 64 bytes.
/// - Fields past [`Event::MAX_FIELDS`] or [`Event::MAX_BYTES`] are left out and counted in the field
///   `omitted`.
#[derive(Clone)]
pub struct Event {
    kind: EventKind,
    /// `,"name":value` for each field.
    fields: Vec<u8>,
    /// Where the names stand: start and end of each.
    names: [(u32, u32); Self::MAX_FIELDS],
    count: usize,
    omitted: u64,
}

impl Event {
    /// Longest text kept, in bytes before escaping: 4 KiB.
    pub const MAX_TEXT_BYTES: usize = 4096;
    /// Most fields, those of the log itself not counted.
    pub const MAX_FIELDS: usize = 32;
    /// Most bytes of all fields together, escaped: 32 KiB.
    pub const MAX_BYTES: usize = 32 * 1024;

    /// Starts an event without fields.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            fields: Vec::with_capacity(TYPICAL_BYTES),
            names: [(0, 0); Self::MAX_FIELDS],
            count: 0,
            omitted: 0,
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with<'a, V: Into<Value<'a>>>(mut self, name: &str, value: V) -> Self {
        self.push(name, &value.into());
        self
    }

    /// Adds a text field from anything that can be displayed, without a `String` in between.
    #[must_use]
    pub fn with_display(mut self, name: &str, value: &dyn fmt::Display) -> Self {
        self.push_text(name, |text| {
            // A Display that fails leaves what it wrote until then; the escaper itself never fails.
            let _written: fmt::Result = write!(text, "{value}");
        });
        self
    }

    /// What the event is about.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The members as they go into the line, each with a comma before it.
    pub(crate) fn into_fields(mut self) -> Vec<u8> {
        if self.omitted > 0 {
            self.fields.extend_from_slice(b",\"omitted\":");
            write_number(&mut self.fields, self.omitted);
        }
        self.fields
    }

    fn push(&mut self, name: &str, value: &Value<'_>) {
        if let Value::Text(text) = *value {
            self.push_text(name, |escaper| escaper.push(text));
            return;
        }
        let Some(mark) = self.begin(name) else { return };
        match *value {
            Value::Bool(true) => self.fields.extend_from_slice(b"true"),
            Value::Bool(false) => self.fields.extend_from_slice(b"false"),
            Value::Unsigned(number) => write_number(&mut self.fields, number),
            Value::Signed(number) => {
                if number < 0 {
                    self.fields.push(b'-');
                }
                write_number(&mut self.fields, number.unsigned_abs());
            }
            // The exponent form is JSON, and short where the plain form has 300 digits.
            Value::Float(number) if number.is_finite() => self
                .fields
                .extend_from_slice(format!("{number:e}").as_bytes()),
            Value::Null | Value::Float(_) | Value::Text(_) => {
                self.fields.extend_from_slice(b"null");
            }
        }
        self.end(mark);
    }

    fn push_text(&mut self, name: &str, write: impl FnOnce(&mut Escaper<'_>)) {
        let Some(mark) = self.begin(name) else { return };
        self.fields.push(b'"');
        let mut escaper = Escaper::new(&mut self.fields, Self::MAX_TEXT_BYTES);
        write(&mut escaper);
        let cut = escaper.cut();
        self.fields.push(b'"');
        if self.end(mark) && cut > 0 {
            let (start, end) = self.names[self.count - 1];
            let name = self
                .fields
                .get(start as usize..end as usize)
                .unwrap_or_default()
                .to_vec();
            self.fields.extend_from_slice(b",\"");
            self.fields.extend_from_slice(&name);
            self.fields.extend_from_slice(b".cut\":");
            write_number(&mut self.fields, cut);
        }
    }

    /// Writes a name that is free and gives the length to return to, or counts the field as omitted.
    fn begin(&mut self, name: &str) -> Option<usize> {
        if self.count == Self::MAX_FIELDS {
            self.omitted += 1;
            return None;
        }
        let mark = self.fields.len();
        self.fields.extend_from_slice(b",\"");
        let start = self.fields.len();
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        self.fields.extend(
            name.bytes()
                .take(MAX_NAME_BYTES)
                .map(|byte| if is_plain(byte) { byte } else { b'_' }),
        );
        // At most one underscore for each taken name.
        while self.is_taken(start) {
            self.fields.push(b'_');
        }
        self.names[self.count] = (offset(start), offset(self.fields.len()));
        self.fields.extend_from_slice(b"\":");
        Some(mark)
    }

    /// Keeps the field that began at `mark` if it fits.
    fn end(&mut self, mark: usize) -> bool {
        let fits = self.fields.len() <= Self::MAX_BYTES;
        if fits {
            self.count += 1;
        } else {
            self.fields.truncate(mark);
            self.omitted += 1;
        }
        fits
    }

    fn is_taken(&self, start: usize) -> bool {
        let name = self.fields.get(start..).unwrap_or_default();
        let is_earlier =
            |&(from, to): &(u32, u32)| self.fields.get(from as usize..to as usize) == Some(name);
        // `x.cut` may be written by the log for a field `x`, so no field may be called so.
        name.is_empty()
            || name.ends_with(b".cut")
            || RESERVED.contains(&name)
            || self.names.iter().take(self.count).any(is_earlier)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Event({}{})",
            self.kind,
            String::from_utf8_lossy(&self.fields)
        )
    }
}

/// Appends a number in decimal.
pub(crate) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Positions fit: all fields together stay far below 4 GiB, a single one below 32 KiB.
fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Names that the log itself writes.
const RESERVED: [&[u8]; 8] = [
    b"seq", b"time", b"event", b"synced", b"notice", b"omitted", b"prev", b"hash",
];
/// Longest name: that of a long HTTP header.
const MAX_NAME_BYTES: usize = 64;
/// Room for the fields of a usual record, so that building one allocates once.
const TYPICAL_BYTES: usize = 384;

#[cfg(test)]
mod tests;
