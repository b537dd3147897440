//! Which attempt of a call a request is, so that services further down don't multiply retries.

use std::num::NonZeroU32;

#[cfg(feature = "http")]
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The number of an attempt: 1 is the first, 2 the first retry.
///
/// Carried from hop to hop. A service that calls others while it answers a request gives those calls the attempt of that
/// request; the retry layer then repeats them no more if it was a retry already, since the caller further up will.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Attempt(NonZeroU32);

impl Attempt {
    /// The first attempt.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The attempt with that number.
    pub const fn new(number: NonZeroU32) -> Self {
        Self(number)
    }

    /// Returns the number, 1 for the first attempt.
    pub const fn number(self) -> NonZeroU32 {
        self.0
    }

    /// Returns whether this is not the first attempt.
    pub const fn is_retry(self) -> bool {
        self.0.get() > 1
    }

    /// Returns the attempt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Reads the attempt of a request from its [`X_MESH_ATTEMPT`]. What is absent, or no number above 0, is the first.
    ///
    /// Who sends a number that is too high harms nobody: its calls are repeated less.
    #[cfg(feature = "http")]
    pub fn of(headers: &HeaderMap) -> Self {
        let digits = headers.get(X_MESH_ATTEMPT).map(HeaderValue::as_bytes);
        let is_number = |digits: &&[u8]| digits.iter().all(u8::is_ascii_digit);
        digits
            .filter(is_number)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .map_or(Self::FIRST, Self)
    }

    /// Writes the attempt into the headers of a request. The first has none.
    #[cfg(feature = "http")]
    pub fn write(self, headers: &mut HeaderMap) {
        if self.is_retry() {
            headers.insert(X_MESH_ATTEMPT, HeaderValue::from(self.0.get()));
        } else {
            headers.remove(X_MESH_ATTEMPT);
        }
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self::FIRST
    }
}

/// The field of a request that says which attempt it is: a decimal number, absent for the first.
#[cfg(feature = "http")]
pub const X_MESH_ATTEMPT: HeaderName = HeaderName::from_static("x-mesh-attempt");

#[cfg(all(test, feature = "http"))]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_what_was_written_and_nonsense_the_first() {
        let mut headers = HeaderMap::new();
        let third = Attempt::FIRST.next().next();
        third.write(&mut headers);
        assert_eq!(headers[X_MESH_ATTEMPT], "3");
        assert_eq!(Attempt::of(&headers), third);
        Attempt::FIRST.write(&mut headers);
        assert!(headers.is_empty());
        for nonsense in ["", "0", "-2", "+2", "2.0", " 2", "99999999999"] {
            headers.insert(X_MESH_ATTEMPT, HeaderValue::from_static(nonsense));
            assert_eq!(Attempt::of(&headers), Attempt::FIRST, "{nonsense:?}");
        }
        headers.insert(X_MESH_ATTEMPT, HeaderValue::from_static("4294967295"));
        assert_eq!(Attempt::of(&headers).next(), Attempt::of(&headers));
    }
}
