//! What a regular expression may cost.

use super::*;

// threat 52
// threat 67
#[test]
fn an_expression_that_would_hold_a_backtracker_up_for_ever_does_not() {
    // A backtracker tries 2^8000 ways and more, so with one this test does not end.
    let value = "a".repeat(8000);
    for text in [
        "^(a+)+$b",
        "(a*)*b",
        "^(a|a)*b",
        "(a|aa)+$b",
        "(.*)(.*)(.*)(.*)b",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
    ] {
        assert!(!Regex::new(text).unwrap().is_in(value.as_bytes()), "{text}");
    }
}

// threat 52
#[test]
fn an_expression_that_becomes_large_is_refused_when_it_is_read() {
    for text in ["a{65535}", "((a{10}){10}){10000}", "(((a?){30}){30}){30}"] {
        let refused = Regex::new(text);
        assert!(
            matches!(refused, Err(RouteProblem::RegexTooLarge)),
            "{text}"
        );
    }
    let deep = "(".repeat(200) + &")".repeat(200);
    assert!(matches!(Regex::new(&deep), Err(RouteProblem::Regex { .. })));
}

#[test]
fn an_error_says_where_in_the_expression_it_is() {
    for (text, column) in [
        ("a(b", 2),
        ("ä[b", 2),
        ("a{2,1}", 2),
        (r"\p{Greek}", 1),
        (r"a(?=b)", 2),
        (r"\w\2", 3),
    ] {
        match Regex::new(text) {
            Err(RouteProblem::Regex { column: found, why }) => {
                assert_eq!(found, column, "{text}: {why}");
                assert!(!why.contains('\n'), "{why}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn classes_are_those_of_ascii_and_bytes_are_matched() {
    let word = Regex::new(r"^\w+$").unwrap();
    assert!(word.is_in(b"a_1") && !word.is_in("\u{e4}".as_bytes()));
    assert!(Regex::new("(?i)^ABC").unwrap().is_in(b"abcd"));
    assert!(Regex::new(r"^\xff").unwrap().is_in(&[0xff, 0]));
}

#[test]
fn an_anchor_is_seen_through_groups_and_choices() {
    for (text, expected) in [
        ("^a", true),
        ("(^a|^b)", true),
        ("^a|b", false),
        ("a", false),
        (r"\Aa", true),
        ("(?m)^a", false),
    ] {
        assert_eq!(Regex::new(text).unwrap().is_anchored(), expected, "{text}");
    }
}
