//! Paths that a pattern matches, chosen so that few other patterns match them too.

use super::PathPattern;
use super::cover::Shape;
use crate::request::{canonical, decoded};

/// Canonical paths that `pattern` matches. As long as no other pattern contains `fresh` or a part of it, and none has more
/// segments than `depth`: where there is a path that `pattern` matches and none of the others does, one of these is such a
/// path.
///
/// A fresh segment is matched by placeholders and by what is open there alone, so a pattern that matches one of these
/// matches every path of its kind: as many segments, the last of them empty or not.
pub(super) fn witnesses(pattern: &PathPattern, depth: usize, fresh: &str) -> Vec<String> {
    let mut paths = match pattern {
        PathPattern::Suffix(text) => of_suffix(text, depth, fresh.as_bytes()),
        _ => of_shape(&Shape::of(pattern), depth, fresh.as_bytes()),
    };
    paths.retain(|path| pattern.matches(path, false));
    let texts = paths.iter().filter_map(|path| sent(path));
    texts.collect()
}

fn of_shape(shape: &Shape<'_>, depth: usize, fresh: &[u8]) -> Vec<Vec<u8>> {
    let mut start = Vec::new();
    for segment in &shape.segments {
        start.push(b'/');
        start.extend_from_slice(segment.unwrap_or(fresh));
    }
    if !shape.is_open {
        return vec![start];
    }
    let mut paths = Vec::new();
    for _ in 0..=depth.saturating_sub(shape.segments.len()).saturating_add(1) {
        start.push(b'/');
        paths.push(start.clone());
        start.extend_from_slice(fresh);
        paths.push(start.clone());
    }
    paths
}

fn of_suffix(suffix: &[u8], depth: usize, fresh: &[u8]) -> Vec<Vec<u8>> {
    let (mut start, mut paths) = (Vec::new(), Vec::new());
    for _ in 0..=depth.saturating_add(1) {
        if suffix.starts_with(b"/") {
            paths.push([&start, suffix].concat());
        } else {
            paths.push([&start, &b"/"[..], suffix].concat());
            paths.push([&start, &b"/"[..], fresh, suffix].concat());
        }
        start.push(b'/');
        start.extend_from_slice(fresh);
    }
    paths
}

/// The path as a request has it; none where no request can.
fn sent(path: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.extend(escape(byte)),
        }
    }
    let canonical = canonical(&text, true).ok()?.into_owned();
    // `.` and `..` would lead elsewhere.
    decoded(&canonical)
        .eq(path.iter().copied())
        .then_some(canonical)
}

fn escape(byte: u8) -> [char; 3] {
    let digit = |value: u8| {
        char::from_digit(value.into(), 16)
            .unwrap_or('0')
            .to_ascii_uppercase()
    };
    ['%', digit(byte >> 4), digit(byte & 15)]
}
