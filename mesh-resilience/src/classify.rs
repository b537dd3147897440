//! What a result says about the service that gave it, and whether the call may be repeated.
//!
//! The breaker, the outlier detector and the retry layer ask a [`Classify`]; they never guess from types.

use std::time::Duration;

use crate::error::{BoxError, find_cause, is_refusal};
use crate::refusal::BreakerOpen;
use crate::refusal::LimitStoreAway;
use crate::refusal::Limited;
use crate::refusal::Overloaded;

#[cfg(feature = "http")]
mod http;

#[cfg(feature = "http")]
pub use self::http::{HttpClassifier, RETRY_NEVER, X_MESH_RETRY};

/// Judges the result of one call.
///
/// Closures `Fn(Result<&Res, &BoxError>) -> Classified` implement it (write the argument's type out, so that
/// the compiler takes it for every lifetime).
pub trait Classify<Res> {
    /// Says what `result` means.
    fn classify(&self, result: Result<&Res, &BoxError>) -> Classified;
}

impl<F, Res> Classify<Res> for F
where
    F: Fn(Result<&Res, &BoxError>) -> Classified,
{
    fn classify(&self, result: Result<&Res, &BoxError>) -> Classified {
        self(result)
    }
}

/// The answer of a [`Classify`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Classified {
    /// What the result says about the service called.
    pub outcome: Outcome,
    /// Whether the same call may be made again.
    pub retryable: Retryable,
    /// How long the service asked to be left alone (`Retry-After`, RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
}

impl Classified {
    /// A result that says `outcome` and must not be retried.
    pub const fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            retryable: Retryable::Never,
            retry_after: None,
        }
    }

    /// The service answered as it should.
    pub const fn success() -> Self {
        Self::new(Outcome::Success)
    }

    /// The service failed; the call may be repeated if it is idempotent.
    pub const fn failure() -> Self {
        Self::new(Outcome::Failure).with_retryable(Retryable::IfIdempotent)
    }

    /// Judges an error that no classifier knows more about.
    ///
    /// A refusal by a layer of this crate is [`Outcome::Unknown`], since the service was not called, and carries the
    /// refusal's `retry_after`. It is [`Retryable::Always`], but for an open breaker: that is there so that callers are
    /// told at once, so none is made to wait for it ([`Retryable::Never`]). Anything else, a timeout included, is a
    /// failure that may be repeated if it is idempotent.
    pub fn of_error(error: &BoxError) -> Self {
        if !is_refusal(error) {
            return Self::failure();
        }
        let refused = Self::new(Outcome::Unknown);
        if let Some(open) = find_cause::<BreakerOpen>(error) {
            return refused.with_retry_after(open.retry_after);
        }
        let refused = refused.with_retryable(Retryable::Always);
        let wait = find_cause::<Limited>(error)
            .map(|limited| limited.retry_after)
            .or_else(|| find_cause::<LimitStoreAway>(error).map(|away| away.retry_after))
            .or_else(|| find_cause::<Overloaded>(error).map(|over| over.retry_after));
        wait.map_or(refused, |wait| refused.with_retry_after(wait))
    }

    /// Sets what the result says about the service called.
    #[must_use]
    pub const fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Sets whether the call may be repeated.
    #[must_use]
    pub const fn with_retryable(mut self, retryable: Retryable) -> Self {
        self.retryable = retryable;
        self
    }

    /// Sets how long the service asked to be left alone.
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

/// What a result says about the service called.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// It works.
    Success,
    /// It does not work.
    Failure,
    /// The caller made a mistake (4xx). Says neither that the service works nor that it doesn't: not counted.
    CallerError,
    /// Nothing is known, since the service was not called or the call was abandoned: not counted.
    Unknown,
}

/// Whether a call may be made again.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Retryable {
    /// Repeating it is of no use.
    Never,
    /// It may have been processed, so only a request that is safe to repeat is repeated.
    IfIdempotent,
    /// The service provably did not process it (refused by a layer here, connection not made,
    /// `REFUSED_STREAM` or beyond the last stream of a GOAWAY: RFC 9113 section 8.7).
    Always,
}

impl Retryable {
    /// Returns whether a second execution can do no harm: the first provably was none, or the request is idempotent.
    ///
    /// Whether it is of use is another question: it says nothing for [`Retryable::Never`].
    pub const fn is_safe(self, is_idempotent: bool) -> bool {
        is_idempotent || matches!(self, Self::Always)
    }
}

/// Every answer is a success; errors are judged by [`Classified::of_error`]. For services whose errors are errors.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorClassifier;

impl ErrorClassifier {
    /// Creates the classifier.
    pub const fn new() -> Self {
        Self
    }
}

impl<Res> Classify<Res> for ErrorClassifier {
    fn classify(&self, result: Result<&Res, &BoxError>) -> Classified {
        result.map_or_else(Classified::of_error, |_| Classified::success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::BulkheadFull;
    use crate::refusal::TimedOut;

    fn of(error: impl Into<BoxError>) -> Classified {
        Classify::<()>::classify(&ErrorClassifier, Err(&error.into()))
    }

    #[test]
    fn a_refusal_says_nothing_of_the_service_and_only_an_open_breaker_is_not_waited_for() {
        let open = of(BreakerOpen::new(Duration::from_secs(9)));
        assert_eq!(
            (open.outcome, open.retryable),
            (Outcome::Unknown, Retryable::Never)
        );
        assert_eq!(open.retry_after, Some(Duration::from_secs(9)));
        assert_eq!(of(BulkheadFull::new()).retryable, Retryable::Always);
    }

    #[test]
    fn a_timeout_is_a_failure_that_may_have_been_processed() {
        let late = of(TimedOut::new(Duration::from_secs(1)));
        assert_eq!(late, Classified::failure());
        assert_eq!(late.retryable, Retryable::IfIdempotent);
    }

    #[test]
    fn closures_classify() {
        let teapot = |result: Result<&u16, &BoxError>| match result {
            Ok(418) => Classified::new(Outcome::CallerError),
            Ok(_) => Classified::success(),
            Err(_) => Classified::failure(),
        };
        assert_eq!(teapot.classify(Ok(&418)).outcome, Outcome::CallerError);
        assert_eq!(teapot.classify(Ok(&200)).outcome, Outcome::Success);
    }
}
