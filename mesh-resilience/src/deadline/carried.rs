//! The time that is left for a call, in the headers of HTTP and gRPC requests.
//!
//! What is carried is a duration and never a moment, since clocks of two machines agree on nothing. Each hop counts from the
//! arrival of the request, and gives on what is left then, less a margin for its own answer to get back:
//! a twentieth of it, at most 5 ms. So the one at the end gives up first, and each before it hears so in time.
//!
//! | field | who reads it | value |
//! |---|---|---|
//! | `grpc-timeout` | gRPC | up to eight digits and one of `H M S m u n` |
//! | `x-mesh-timeout-ms` | nodes, and applications that want to | milliseconds, up to eight digits, above 0 |
//!
//! # Sources
//!
//! - gRPC over HTTP/2, "Requests" (`Timeout`, `TimeoutValue`, `TimeoutUnit`).
//! - gRPC, "Deadlines" (propagated as a timeout, from which what has passed is taken off).

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// How many milliseconds are left for the head of the answer: digits, at most eight.
pub const X_MESH_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-mesh-timeout-ms");

/// Returns how long the sender of a request waits: the shorter where several fields say so. What is no valid value, or no time
/// at all, is passed over.
pub fn carried(headers: &HeaderMap) -> Option<Duration> {
    let grpc = headers.get_all(GRPC_TIMEOUT).iter();
    let grpc = grpc.filter_map(|value| grpc_timeout(value.as_bytes()));
    let mesh = headers.get_all(X_MESH_TIMEOUT_MS).iter();
    let mesh = mesh
        .filter_map(|value| digits(value.as_bytes()))
        .map(Duration::from_millis);
    grpc.chain(mesh).filter(|left| !left.is_zero()).min()
}

/// Writes how much time is `left` for the head of an answer into a request. A `grpc-timeout` that it has, which bounds a stream
/// as a whole, becomes shorter by what was `spent` of it here, and never shorter for `left`; one that can't be read becomes
/// `left`.
pub fn carry(headers: &mut HeaderMap, left: Duration, spent: Duration) {
    let millis = left.as_millis().clamp(1, MAX_VALUE.into());
    let millis = u64::try_from(millis).unwrap_or(MAX_VALUE);
    headers.insert(X_MESH_TIMEOUT_MS, HeaderValue::from(millis));
    let given = headers
        .get(GRPC_TIMEOUT)
        .map(|given| grpc_timeout(given.as_bytes()));
    if let Some(given) = given {
        let rest = given.map_or(left, |given| for_next_hop(given.saturating_sub(spent)));
        headers.insert(GRPC_TIMEOUT, to_grpc_timeout(rest));
    }
}

/// Returns what the next hop may take of the time that is `left`: all but a twentieth of it, or 5 ms where that is less.
pub fn for_next_hop(left: Duration) -> Duration {
    left.saturating_sub((left / MARGIN_PART).min(MAX_MARGIN))
}

/// Reads a `grpc-timeout`.
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, amount) = value.split_last()?;
    let amount = digits(amount)?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Writes a `grpc-timeout`, in the smallest unit that holds it; rounded down, and never to nothing.
pub fn to_grpc_timeout(timeout: Duration) -> HeaderValue {
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (timeout.as_secs().into(), 'S'),
        ((timeout.as_secs() / 60).into(), 'M'),
    ];
    let longest = (
        u128::from(timeout.as_secs() / 3600).min(MAX_VALUE.into()),
        'H',
    );
    let fits = units
        .into_iter()
        .find(|(amount, _)| *amount <= u128::from(MAX_VALUE));
    let (amount, unit) = fits.unwrap_or(longest);
    let text = format!("{}{unit}", amount.max(1));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("1n"))
}

/// Up to eight digits, which is what gRPC allows; they always fit.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MAX_DIGITS || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |sum, digit: &u8| sum * 10 + u64::from(*digit - b'0');
    Some(text.iter().fold(0, number))
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const MAX_DIGITS: usize = 8;
const MAX_VALUE: u64 = 99_999_999;
const MARGIN_PART: u32 = 20;
const MAX_MARGIN: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn grpc_timeouts_are_read_as_the_specification_says() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("2M", Some(Duration::from_mins(2))),
            ("20S", Some(Duration::from_secs(20))),
            ("100m", Some(Duration::from_millis(100))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("+1S", None),
            ("1 S", None),
            ("5s", None),
            ("5", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_shortest_time_counts_and_nonsense_does_not() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let field = "x-mesh-timeout-ms";
        for (fields, expected) in [
            (&[(field, "250")][..], ms(250)),
            (&[(field, "250"), ("grpc-timeout", "1S")], ms(250)),
            (&[(field, "2500"), ("grpc-timeout", "1S")], ms(1000)),
            (&[(field, "250"), (field, "20")], ms(20)),
            (&[(field, "0"), ("grpc-timeout", "0m")], None),
            (&[(field, "123456789")], None),
            (&[(field, "-5")], None),
            (&[(field, "1e3"), ("grpc-timeout", "forever")], None),
            (&[], None),
        ] {
            assert_eq!(carried(&given(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_time_of_a_stream_shrinks_by_what_was_spent_and_not_to_that_of_a_head() {
        let ms = Duration::from_millis;
        for (given_to, left, spent, expected) in [
            ("600S", 1000, 100, "599895m"),
            ("200m", 1000, 50, "145000u"),
            ("20m", 1000, 30, "1n"),
            ("nonsense", 1000, 0, "1000000u"),
        ] {
            let mut headers = given(&[("grpc-timeout", given_to), ("x-mesh-timeout-ms", "77")]);
            carry(&mut headers, ms(left), ms(spent));
            assert_eq!(headers["grpc-timeout"], expected, "{given_to}");
            assert_eq!(headers[X_MESH_TIMEOUT_MS], "1000");
        }
        let mut headers = HeaderMap::new();
        carry(&mut headers, Duration::ZERO, Duration::ZERO);
        assert_eq!(carried(&headers), Some(Duration::from_millis(1)));
        assert!(
            !headers.contains_key("grpc-timeout"),
            "a stream may last longer"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_what_is_written_is_read_again(
            bytes in prop::collection::vec(any::<u8>(), 0..12),
            nanos in 1_u64..,
        ) {
            prop_assert!(grpc_timeout(&bytes).is_none_or(|read| read <= Duration::from_hours(99_999_999)));
            let timeout = Duration::from_nanos(nanos);
            let written = to_grpc_timeout(timeout);
            let read = grpc_timeout(written.as_bytes()).unwrap();
            prop_assert!(written.len() <= 9 && read <= timeout);
            prop_assert!(read.as_nanos() >= timeout.as_nanos() / 100 * 98, "{written:?}");
            let next = for_next_hop(timeout);
            prop_assert!(next <= timeout && timeout.saturating_sub(next) <= MAX_MARGIN);
        }
    }
}
