//! One pattern covers another where every path says so, and a witness is found where there is one.

use super::*;
use crate::request::canonical;

const PATTERNS: [&str; 24] = [
    "/*",
    "/a",
    "/a/",
    "/a/*",
    "/a/b",
    "/a/b/*",
    "/{x}",
    "/{x}/",
    "/{x}/*",
    "/{x}/b",
    "/a/{x}",
    "/a/{x}/",
    "/a/{x}/*",
    "/{x}/{y}",
    "/{x}/{y}/*",
    "/{x}/a/*",
    "*a",
    "*/a",
    "*/a/b",
    "*b",
    "*/",
    "*a/",
    "*a/b",
    "*.json",
];

/// Every path of up to four segments from a small alphabet.
fn paths() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..4 {
        let grown = last.iter().flat_map(|start| {
            ["", "a", "b", "ba", "ab", "x.json"]
                .map(|segment| [start, &b"/"[..], segment.as_bytes()].concat())
        });
        last = grown.collect();
        all.extend_from_slice(&last);
    }
    all.retain(|path| {
        let text = String::from_utf8(path.clone()).unwrap();
        canonical(&text, true).is_ok_and(|canonical| canonical == text)
    });
    all
}

#[test]
fn a_pattern_covers_another_where_every_path_says_so() {
    let paths = paths();
    for wide in PATTERNS {
        let wide_pattern = PathPattern::parse(wide).unwrap();
        for narrow in PATTERNS {
            let narrow_pattern = PathPattern::parse(narrow).unwrap();
            let is_covered = paths
                .iter()
                .filter(|path| narrow_pattern.matches(path, false))
                .all(|path| wide_pattern.matches(path, false));
            assert_eq!(
                covers(&wide_pattern, &narrow_pattern),
                is_covered,
                "{wide} {narrow}"
            );
        }
    }
}

#[test]
fn where_a_path_is_left_one_of_the_witnesses_is_left() {
    let paths = paths();
    let patterns: Vec<PathMatcher> = PATTERNS
        .iter()
        .map(|text| PathMatcher::parse(text).unwrap())
        .collect();
    for (own, text) in patterns.iter().zip(PATTERNS) {
        let witnesses = own.witnesses(4, "\u{fc}");
        assert!(!witnesses.is_empty(), "{text}");
        let witnesses: Vec<Vec<u8>> = witnesses
            .iter()
            .map(|path| PathMatcher::undo_escapes(path).collect())
            .collect();
        assert!(witnesses.iter().all(|path| own.matches(path)), "{text}");
        for (first, one) in patterns.iter().zip(PATTERNS) {
            for (second, other) in patterns.iter().zip(PATTERNS) {
                let is_left = |path: &Vec<u8>| {
                    own.matches(path) && !first.matches(path) && !second.matches(path)
                };
                assert_eq!(
                    paths.iter().any(is_left),
                    witnesses.iter().any(is_left),
                    "{text} without {one} and {other}"
                );
            }
        }
    }
}
