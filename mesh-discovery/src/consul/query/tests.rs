//! The state of a query, by itself.

use http::HeaderValue;

use super::*;

fn state(index: u64, failures: u32) -> State {
    State { index, failures }
}

#[test]
fn an_index_that_goes_back_or_to_zero_starts_anew() {
    for (before, answered, after) in [(0, 7, 7), (7, 9, 9), (9, 9, 9), (9, 8, 0), (9, 0, 0)] {
        let mut state = state(before, 3);
        state.advance(answered);
        assert_eq!(state, self::state(after, 0), "{before} {answered}");
    }
}

#[test]
fn a_failure_starts_anew_too_since_who_answers_next_may_count_anew() {
    let mut state = state(9, 0);
    state.fail();
    assert_eq!(state, self::state(0, 1));
}

#[test]
fn an_index_that_is_no_number_counts_as_none() {
    for (text, expected) in [
        ("12", 12),
        ("-1", 0),
        ("x", 0),
        ("", 0),
        ("18446744073709551616", 0),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("x-consul-index", HeaderValue::from_static(text));
        assert_eq!(index_of(&headers), expected, "{text}");
    }
    assert_eq!(index_of(&HeaderMap::new()), 0);
}

#[test]
fn backs_off_between_half_and_the_whole_of_a_bound() {
    for (failures, whole) in [
        (1, 1000),
        (2, 2000),
        (3, 4000),
        (4, 8000),
        (5, 10_000),
        (u32::MAX, 10_000),
    ] {
        let pause = |random| state(0, failures).pause(random).as_millis();
        assert_eq!(pause(0), whole / 2);
        assert!(pause(999) > whole * 99 / 100 && pause(999) <= whole);
    }
}

#[test]
fn asks_no_more_than_four_times_a_second_and_once_a_second_without_an_index() {
    assert_eq!(state(7, 0).pause(0), Duration::from_millis(250));
    assert_eq!(state(0, 0).pause(0), Duration::from_secs(1));
}
