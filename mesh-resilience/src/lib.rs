//! Circuit breaker, retry with budget, timeout, bulkhead, rate limit and balancing as tower layers.

pub mod balance;
pub mod breaker;
pub mod bulkhead;
pub mod classify;
pub mod fallback;
pub mod limit;
pub mod random;
pub mod retry;
pub mod timeout;

#[cfg(feature = "serde")]
mod duration;
mod error;

pub use self::error::{BoxError, ConfigError, find_cause, find_cause_in, is_refusal};
