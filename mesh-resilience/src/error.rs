//! What layers refuse with, and how a caller finds it again behind a [`BoxError`].

use std::error::Error;

use crate::refusal::BreakerOpen;
use crate::refusal::BulkheadFull;
use crate::refusal::LimitStoreAway;
use crate::refusal::Limited;
use crate::refusal::Overloaded;

/// The error type of every layer in this crate.
///
/// Five layers deep a typed error would be unreadable, so each layer boxes; the leaves
/// ([`BreakerOpen`], [`BulkheadFull`], [`Limited`], [`Overloaded`], [`TimedOut`](crate::timeout::TimedOut)) are found with [`find_cause`].
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Finds the first error of type `E` in `error` or in its chain of sources.
///
/// ```
/// use mesh_resilience::timeout::TimedOut;
/// use mesh_resilience::{BoxError, find_cause};
/// use std::time::Duration;
///
/// let error: BoxError = TimedOut::new(Duration::from_secs(30)).into();
/// assert_eq!(find_cause::<TimedOut>(&error).map(|e| e.after), Some(Duration::from_secs(30)));
/// ```
pub fn find_cause<E: Error + 'static>(error: &BoxError) -> Option<&E> {
    find_cause_in(&**error)
}

/// Finds the first error of type `E` in `error` or in its chain of sources, for an error that is not boxed.
pub fn find_cause_in<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    // A chain is short; the bound keeps an error that is its own source from hanging a request.
    for _ in 0..MAX_CHAIN {
        let at = cause?;
        if let Some(found) = at.downcast_ref::<E>() {
            return Some(found);
        }
        cause = at.source();
    }
    None
}

/// Returns whether `error` is one that a layer of this crate answered with before calling the service below it.
///
/// Such a call was provably not processed: [`BreakerOpen`], [`BulkheadFull`], [`Limited`], [`LimitStoreAway`] or
/// [`Overloaded`].
pub fn is_refusal(error: &BoxError) -> bool {
    find_cause::<BreakerOpen>(error).is_some()
        || find_cause::<BulkheadFull>(error).is_some()
        || find_cause::<Limited>(error).is_some()
        || find_cause::<LimitStoreAway>(error).is_some()
        || find_cause::<Overloaded>(error).is_some()
}

/// A configuration that no layer can be built from.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A duration that must be longer than nothing is zero.
    #[error("{field} is zero, set it to a positive duration")]
    ZeroDuration {
        /// The field.
        field: &'static str,
    },
    /// A number lies outside the range in which it means something.
    #[error("{field} is {value}, set it between {min} and {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it was set to.
        value: f64,
        /// The lowest value allowed.
        min: f64,
        /// The highest value allowed.
        max: f64,
    },
    /// A rate limit has no window, or more than [`MAX_WINDOWS`](crate::limit::MAX_WINDOWS).
    #[error("{windows} rate limit windows are set, set between 1 and {max}")]
    Windows {
        /// How many were given.
        windows: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A number that must be a prime is none.
    #[error("{field} is {value}, set it to a prime number such as 65537")]
    NotPrime {
        /// The field.
        field: &'static str,
        /// What it was set to.
        value: u32,
    },
}

impl ConfigError {
    /// Checks that a duration is longer than nothing.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZeroDuration`] that names `field`.
    pub fn check_duration(field: &'static str, value: std::time::Duration) -> Result<(), Self> {
        if value.is_zero() {
            Err(Self::ZeroDuration { field })
        } else {
            Ok(())
        }
    }

    /// Checks that a number lies in a range, bounds included.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] that names `field`.
    pub fn check_range(field: &'static str, value: f64, min: f64, max: f64) -> Result<(), Self> {
        // A NaN is in no range.
        if (min..=max).contains(&value) {
            Ok(())
        } else {
            Err(Self::OutOfRange {
                field,
                value,
                min,
                max,
            })
        }
    }
}

const MAX_CHAIN: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::refusal::TimedOut;

    #[derive(Debug, thiserror::Error)]
    #[error("call failed")]
    struct Outer(#[source] BoxError);

    #[test]
    fn a_cause_is_found_below_other_errors() {
        let inner: BoxError = BulkheadFull::new().into();
        let error: BoxError = Outer(Box::new(Outer(inner))).into();
        assert!(find_cause::<BulkheadFull>(&error).is_some());
        assert!(find_cause::<TimedOut>(&error).is_none());
        assert!(is_refusal(&error));
        assert!(!is_refusal(&TimedOut::new(Duration::ZERO).into()));
    }

    #[test]
    fn a_number_out_of_range_says_so() {
        let error = ConfigError::check_range("jitter_ratio", f64::NAN, 0.0, 0.1);
        assert_eq!(
            error.unwrap_err().to_string(),
            "jitter_ratio is NaN, set it between 0 and 0.1"
        );
    }
}
