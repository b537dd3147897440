//! One spelling for each path; paths with two readings are refused.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use super::RequestError;

/// The canonical spelling of `path`: the same text when it already is.
pub(crate) fn canonical(path: &str, parameters: bool) -> Result<Cow<'_, str>, RequestError> {
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    if check(path.as_bytes(), parameters)? {
        return Ok(Cow::Borrowed(path));
    }
    rebuild(path.as_bytes()).map(Cow::Owned)
}

/// The bytes of a canonical path with its escapes undone.
///
/// Escaped slashes are never accepted, so undoing the escapes can't move a segment's border.
pub(crate) fn decoded(path: &str) -> impl Iterator<Item = u8> {
    let mut bytes = path.bytes();
    std::iter::from_fn(move || match bytes.next()? {
        b'%' => {
            let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
            Some(join(high.unwrap_or(0), low.unwrap_or(0)))
        }
        byte => Some(byte),
    })
}

/// Whether a path needs no further look: it starts with a slash and has only ordinary characters,
/// no `//` and no segment that starts with a dot. One table look-up a byte.
fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut after_slash = false;
    for &byte in path {
        let ordinary = match byte {
            b'/' | b'.' => !after_slash,
            _ => CLASS.get(usize::from(byte)) == Some(&PATH),
        };
        if !ordinary {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

/// Refuses what must be refused; says whether the path is canonical as it stands.
fn check(path: &[u8], parameters: bool) -> Result<bool, RequestError> {
    if path.first() != Some(&b'/') {
        return Err(RequestError::NoPath);
    }
    let mut canonical = true;
    // Units of the segment so far, and how many of them were dots before anything else.
    let (mut length, mut dots) = (0_usize, 0_usize);
    // Hex digits still needed to complete a double encoding.
    let mut after_percent = 0_u8;
    let mut units = Units {
        rest: path.get(1..).unwrap_or_default(),
    };
    let mut utf8 = Utf8::default();
    while let Some(unit) = units.next()? {
        utf8.push(unit.byte)?;
        after_percent = match (after_percent, unit.byte) {
            (_, b'%') => 2,
            (1, digit) if hex(digit).is_some() => return Err(RequestError::DoubleEncoding),
            (2, digit) if hex(digit).is_some() => 1,
            _ => 0,
        };
        if unit.byte == b';' && (!parameters || (length == dots && length <= 2)) {
            return Err(RequestError::PathParameter);
        }
        if unit.byte == b'/' {
            canonical &= !is_empty_or_dots(length, dots);
            (length, dots) = (0, 0);
            continue;
        }
        canonical &= unit.is_canonical;
        dots = dots.saturating_add(usize::from(unit.byte == b'.' && dots == length));
        length = length.saturating_add(1);
    }
    utf8.finish()?;
    let is_last_plain = length == 0 || !is_empty_or_dots(length, dots);
    Ok(canonical && is_last_plain)
}

fn is_empty_or_dots(length: usize, dots: usize) -> bool {
    length == 0 || (length == dots && length <= 2)
}

/// Writes the canonical spelling of a path that [`check`] accepted.
fn rebuild(path: &[u8]) -> Result<String, RequestError> {
    let mut out = String::with_capacity(path.len());
    out.push('/');
    let mut start = out.len();
    let mut units = Units {
        rest: path.get(1..).unwrap_or_default(),
    };
    while let Some(unit) = units.next()? {
        if unit.byte == b'/' {
            if end_segment(&mut out, start)? {
                out.push('/');
            }
            start = out.len();
        } else if CLASS.get(usize::from(unit.byte)) == Some(&ESCAPED_ONLY)
            || (unit.is_escaped && !is_unreserved(unit.byte))
        {
            push_escaped(&mut out, unit.byte);
        } else {
            out.push(char::from(unit.byte));
        }
    }
    end_segment(&mut out, start)?;
    Ok(out)
}

/// Resolves the segment that starts at `start`; says whether it stays.
fn end_segment(out: &mut String, start: usize) -> Result<bool, RequestError> {
    match out.get(start..).unwrap_or_default() {
        "" => Ok(false),
        "." => {
            out.truncate(start);
            Ok(false)
        }
        ".." => {
            // `out` now ends in the slash before the segment; the slash before that one stays.
            out.truncate(start.saturating_sub(1));
            let parent = out.rfind('/').ok_or(RequestError::AboveRoot)?;
            out.truncate(parent.saturating_add(1));
            Ok(false)
        }
        _ => Ok(true),
    }
}

fn push_escaped(out: &mut String, byte: u8) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.extend(DIGITS.get(usize::from(digit)));
    }
}

/// One byte of a path as the application will understand it.
struct Unit {
    byte: u8,
    is_escaped: bool,
    is_canonical: bool,
}

struct Units<'a> {
    rest: &'a [u8],
}

impl Units<'_> {
    fn next(&mut self) -> Result<Option<Unit>, RequestError> {
        let Some((&first, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        if first != b'%' {
            self.rest = rest;
            if first == b'\\' {
                return Err(RequestError::HiddenSeparator);
            }
            if first.is_ascii_control() {
                return Err(RequestError::ControlCharacter);
            }
            let is_canonical = CLASS.get(usize::from(first)) != Some(&ESCAPED_ONLY);
            return Ok(Some(Unit {
                byte: first,
                is_escaped: false,
                is_canonical,
            }));
        }
        let [high, low, rest @ ..] = rest else {
            return Err(RequestError::BadEscape);
        };
        self.rest = rest;
        let (Some(h), Some(l)) = (hex(*high), hex(*low)) else {
            return Err(RequestError::BadEscape);
        };
        let byte = join(h, l);
        if matches!(byte, b'/' | b'\\') {
            return Err(RequestError::HiddenSeparator);
        }
        if byte.is_ascii_control() {
            return Err(RequestError::ControlCharacter);
        }
        let is_upper = !high.is_ascii_lowercase() && !low.is_ascii_lowercase();
        Ok(Some(Unit {
            byte,
            is_escaped: true,
            is_canonical: is_upper && !is_unreserved(byte),
        }))
    }
}

/// Checks UTF-8 a character at a time, so that nothing needs to be collected.
#[derive(Default)]
struct Utf8 {
    pending: [u8; 4],
    length: usize,
    expected: usize,
}

impl Utf8 {
    fn push(&mut self, byte: u8) -> Result<(), RequestError> {
        if self.length == 0 {
            if byte.is_ascii() {
                return Ok(());
            }
            self.expected = match byte {
                0xC2..=0xDF => 2,
                0xE0..=0xEF => 3,
                0xF0..=0xF4 => 4,
                _ => return Err(RequestError::NotUtf8),
            };
        }
        *self
            .pending
            .get_mut(self.length)
            .ok_or(RequestError::NotUtf8)? = byte;
        self.length = self.length.saturating_add(1);
        if self.length == self.expected {
            let character = self.pending.get(..self.length).unwrap_or_default();
            std::str::from_utf8(character).map_err(|_invalid| RequestError::NotUtf8)?;
            self.length = 0;
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), RequestError> {
        if self.length == 0 {
            Ok(())
        } else {
            Err(RequestError::NotUtf8)
        }
    }
}

fn join(high: u8, low: u8) -> u8 {
    (high << 4) | low
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Stands in a path as it is (RFC 3986 `pchar` without `;`, the dot and escapes).
const PATH: u8 = 1;
/// May stand in a path only as an escape.
const ESCAPED_ONLY: u8 = 2;

const CLASS: [u8; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
const fn classes() -> [u8; 256] {
    let mut classes = [ESCAPED_ONLY; 256];
    let plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~!$&'()*+,=:@";
    let mut at = 0;
    while at < plain.len() {
        classes[plain[at] as usize] = PATH;
        at += 1;
    }
    // These have a meaning of their own and are looked at one by one.
    classes[b'/' as usize] = 0;
    classes[b'.' as usize] = 0;
    classes[b'%' as usize] = 0;
    classes[b';' as usize] = 0;
    classes
}
