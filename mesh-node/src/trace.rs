//! W3C trace context and request ids: passed on where they come in, made where they do not.
//!
//! # Sources
//!
//! W3C Trace Context, "traceparent header": version, 16-byte trace id, 8-byte parent id, flags, all in lower-case hex.

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use mesh_resilience::random::Random as _;
use mesh_resilience::random::SplitMix64;

use crate::respond::X_REQUEST_ID;

/// The header of W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Gives ids that do not repeat within a node's life, from a random start.
#[derive(Debug)]
pub(crate) struct Ids {
    random: Arc<SplitMix64>,
}

impl Ids {
    pub(crate) fn new(random: Arc<SplitMix64>) -> Self {
        Self { random }
    }

    fn next(&self) -> u64 {
        self.random.next_u64()
    }

    /// Makes sure that a request has a request id and a valid trace context.
    pub(crate) fn ensure(&self, headers: &mut HeaderMap) {
        // A longer one would be a way to fill our logs (threat 56).
        let is_usable = |id: &HeaderValue| (1..=MAX_REQUEST_ID).contains(&id.len());
        if !headers.get(X_REQUEST_ID).is_some_and(is_usable) {
            headers.insert(X_REQUEST_ID, hex_value(&[self.next(), self.next()]));
        }
        let traced = headers.get(TRACEPARENT).and_then(trace_id).is_some();
        if !traced {
            let mut text = String::with_capacity(TRACEPARENT_LEN);
            let (high, low, span) = (self.next(), self.next() | 1, self.next() | 1);
            // Not sampled: whether to record is the application's decision or the collector's.
            if write!(text, "00-{high:016x}{low:016x}-{span:016x}-00").is_ok()
                && let Ok(value) = HeaderValue::try_from(text)
            {
                headers.insert(TRACEPARENT, value);
            }
        }
    }
}

/// The trace id of a valid `traceparent`, else `None`.
pub(crate) fn trace_id(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    if !text.is_ascii() || text.len() < TRACEPARENT_LEN {
        return None;
    }
    let mut fields = text.split('-');
    let (version, trace, parent, flags) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let hex = |field: &str, len| {
        field.len() == len
            && field
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |field: &str| field.bytes().all(|b| b == b'0');
    let is_valid = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2)
        && (version != "00" || fields.next().is_none());
    is_valid.then_some(trace)
}

fn hex_value(words: &[u64]) -> HeaderValue {
    let mut text = String::with_capacity(words.len() * 16);
    for word in words {
        for shift in (0..16).rev() {
            let digit = u32::try_from((word >> (shift * 4)) & 15).unwrap_or(0);
            text.push(char::from_digit(digit, 16).unwrap_or('0'));
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

const MAX_REQUEST_ID: usize = 128;
/// `00-` + 32 + `-` + 16 + `-` + 2.
const TRACEPARENT_LEN: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_context_passes_unchanged_and_a_broken_one_is_replaced() {
        let ids = Ids::new(Arc::new(SplitMix64::new(7)));
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (given, kept) in [
            (good, true),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                false,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                false,
            ),
            ("nonsense", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_static(given));
            ids.ensure(&mut headers);
            assert_eq!(headers[TRACEPARENT] == given, kept, "{given}");
            assert!(trace_id(&headers[TRACEPARENT]).is_some());
            assert_eq!(headers[X_REQUEST_ID].len(), 32);
        }
    }
}
