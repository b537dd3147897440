//! Header fields and parameters of the query.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::HeaderName;
use http::header;

use super::regex::Regex;

/// What a field must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum FieldRule {
    Equals(Box<[u8]>),
    Prefix(Box<[u8]>),
    Regex(Regex),
    Present(bool),
}

impl FieldRule {
    /// Whether a field with that value, or none, is as it must be.
    pub(super) fn holds(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Present(expected), value) => value.is_some() == *expected,
            (_, None) => false,
            (Self::Equals(text), Some(value)) => **text == *value,
            (Self::Prefix(text), Some(value)) => value.starts_with(text),
            (Self::Regex(regex), Some(value)) => regex.is_in(value),
        }
    }

    /// The text that it compares with.
    pub(super) fn text(&self) -> &[u8] {
        match self {
            Self::Equals(text) | Self::Prefix(text) => text,
            Self::Regex(regex) => regex.text().as_bytes(),
            Self::Present(_) => &[],
        }
    }
}

impl fmt::Display for FieldRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(text) => write!(f, "is {:?}", String::from_utf8_lossy(text)),
            Self::Prefix(text) => {
                write!(f, "begins with {:?}", String::from_utf8_lossy(text))
            }
            Self::Regex(regex) => write!(f, "contains a match of {:?}", regex.text()),
            Self::Present(true) => f.write_str("is there"),
            Self::Present(false) => f.write_str("is not there"),
        }
    }
}

/// A header field and what it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct HeaderRule {
    pub(super) name: HeaderName,
    pub(super) rule: FieldRule,
}

impl HeaderRule {
    pub(super) fn holds(&self, headers: &HeaderMap) -> bool {
        match &self.rule {
            FieldRule::Present(expected) => headers.contains_key(&self.name) == *expected,
            rule => rule.holds(combined(headers, &self.name).as_deref()),
        }
    }
}

/// A parameter of the query and what it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct QueryRule {
    pub(super) name: Box<str>,
    pub(super) rule: FieldRule,
}

impl QueryRule {
    pub(super) fn holds(&self, query: Option<&str>) -> bool {
        let value = query.and_then(|query| parameter(query, self.name.as_bytes()));
        self.rule.holds(value.as_deref())
    }
}

/// The combined value of a field (RFC 9110 section 5.2; for `cookie` RFC 9113 section 8.2.3).
fn combined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(Cow::Borrowed(first.as_bytes()));
    };
    let between: &[u8] = if *name == header::COOKIE {
        b"; "
    } else {
        b", "
    };
    let mut whole = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        whole.extend_from_slice(between);
        whole.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(whole))
}

/// The first parameter of that name.
fn parameter<'a>(query: &'a str, name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query
        .as_bytes()
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|&byte| byte == b'=');
            match at.and_then(|at| pair.split_at_checked(at)) {
                Some((own, value)) => (own, value.strip_prefix(b"=").unwrap_or_default()),
                None => (pair, &[][..]),
            }
        })
        .find(|(own, _)| *undone(own) == *name)
        .map(|(_, value)| undone(value))
}

/// `+` is a space, and an escape its byte; what only looks like an escape stays (WHATWG URL, section 5.1).
fn undone(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = match (byte, after) {
            (b'%', [high, low, tail @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, tail)),
            _ => None,
        };
        match (byte, escaped) {
            (_, Some((byte, tail))) => {
                out.push(byte);
                rest = tail;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
