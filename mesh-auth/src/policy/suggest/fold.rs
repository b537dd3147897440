//! Folds paths that differ in ids alone into templates.

use std::collections::{BTreeMap, BTreeSet};

/// Patterns that match the given canonical paths and no others but for ids.
pub(super) fn patterns<'a, P: Iterator<Item = &'a str>>(paths: P) -> BTreeSet<String> {
    // Paths that are equal but for segments that look like ids stand together.
    let mut shapes: BTreeMap<Vec<Option<&str>>, Vec<Vec<&str>>> = BTreeMap::new();
    for path in paths {
        let segments: Vec<&str> = path.split('/').collect();
        let shape = segments
            .iter()
            .map(|segment| (!looks_like_an_id(segment)).then_some(*segment));
        shapes.entry(shape.collect()).or_default().push(segments);
    }
    let mut patterns = BTreeSet::new();
    for (shape, members) in shapes {
        let first = members.first().cloned().unwrap_or_default();
        let pattern = shape.iter().zip(0..).map(|(fixed, at)| {
            let own = first.get(at).copied().unwrap_or_default();
            let varies = members.iter().any(|other| other.get(at) != Some(&own));
            match fixed {
                None if varies => PLACEHOLDER.to_owned(),
                // A star would be read as more than its letter.
                _ => own.replace('*', "%2A"),
            }
        });
        patterns.insert(pattern.collect::<Vec<_>>().join("/"));
    }
    patterns
}

/// A number, a UUID, a long hexadecimal text, or a long text that mixes letters and digits.
fn looks_like_an_id(segment: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if segment.is_empty() || !segment.chars().all(is_word) {
        return false;
    }
    let count = |of: fn(&char) -> bool| segment.chars().filter(of).count();
    let digits = count(char::is_ascii_digit);
    let letters = count(char::is_ascii_alphabetic);
    let hexadecimal = count(char::is_ascii_hexdigit);
    if letters == 0 {
        return digits > 0;
    }
    let is_hexadecimal = hexadecimal == segment.len() && digits > 0;
    if segment.len() >= LONG && is_hexadecimal || is_uuid(segment) {
        return true;
    }
    // A word such as `getOrdersByUser` has no digits, and `order-report-2024-q3` few.
    segment.len() >= LONG && letters > 0 && digits * 5 >= segment.len()
}

/// Eight, four, four, four and twelve hexadecimal digits (RFC 9562 section 4).
fn is_uuid(segment: &str) -> bool {
    let parts: Vec<&str> = segment.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && parts
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

const PLACEHOLDER: &str = "{id}";
/// Shorter texts are words more often than ids.
const LONG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(paths: &[&str]) -> Vec<String> {
        patterns(paths.iter().copied()).into_iter().collect()
    }

    #[test]
    fn an_id_with_several_values_becomes_a_placeholder() {
        assert_eq!(fold(&["/users/7", "/users/42"]), ["/users/{id}"]);
        assert_eq!(
            fold(&["/users/7/orders/1", "/users/7/orders/2", "/users/7"]),
            ["/users/7", "/users/7/orders/{id}"]
        );
        assert_eq!(
            fold(&["/a/1/2/", "/a/3/4/", "/a/1/2"]),
            ["/a/1/2", "/a/{id}/{id}/"]
        );
    }

    #[test]
    fn what_was_seen_once_and_what_is_a_word_stays() {
        assert_eq!(fold(&["/users/7"]), ["/users/7"]);
        assert_eq!(
            fold(&["/users/ada", "/users/bob"]),
            ["/users/ada", "/users/bob"]
        );
        assert_eq!(fold(&["/v1/x", "/v2/x"]), ["/v1/x", "/v2/x"]);
        assert_eq!(fold(&["/", "/a*"]), ["/", "/a%2A"]);
    }

    #[test]
    fn tells_ids_from_words() {
        for id in [
            "7",
            "2026-11-22",
            "0190a8b4-7c2e-7d7f-b3f1-9a6c2b1d4e5f",
            "deadbeefdeadbee1",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "cus_9s6XKzkNRiz8i3",
        ] {
            assert!(looks_like_an_id(id), "{id}");
        }
        for word in [
            "",
            "orders",
            "v2",
            "getOrdersByUserAndDate",
            "a.json",
            "oauth2",
            "internationalisation",
            "order-report-2024-q3-final-version",
            "deadbeef",
            "%2A",
            "-",
        ] {
            assert!(!looks_like_an_id(word), "{word}");
        }
    }
}
