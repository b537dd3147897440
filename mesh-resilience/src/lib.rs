//! Circuit breaker, retry with budget, timeout, bulkhead, rate limit and balancing as tower layers.

pub mod breaker;
pub mod bulkhead;
pub mod classify;
mod error;
pub mod limit;
pub mod random;
pub mod retry;
pub mod timeout;

#[cfg(feature = "serde")]
mod duration;

pub use self::error::{BoxError, ConfigError, find_cause, find_cause_in, is_refusal};
