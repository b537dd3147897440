//! Retry: calls again what failed, slower each time, and only where that can't do harm.
//!
//! Repeated is a request that
//!
//! - is worth it: its [`Classify`](crate::classify::Classify) says so;
//! - is safe: it is idempotent, or the service provably did not process it ([`Retryable::Always`]);
//! - can be repeated: [`Replay::try_replay`] gives a copy;
//! - has time: the wait ends before its deadline;
//! - has budget: see [`Budget`].
//!
//! Otherwise the caller gets the last answer or error as it is.
//!
//! ```text
//!            ┌─────────────────────────────────────────────────┐
//!            ▼                                                 │ wait is over
//!   call ─▶ CALLING ── worth it, safe, copy, time, budget ─▶ WAITING
//!            │
//!            └── success, or one of these is missing ──▶ answer as it is
//! ```
//!
//! # Terms
//!
//! *Attempt*: one sending of a call; the first is number 1. *Retry*: any but the first. *Full jitter*: the wait is drawn
//! evenly between nothing and the bound, which doubles. *Budget*: retries allowed for all calls together.
//! *Amplification*: requests that reach a service, for one that a caller made.
//!
//! # Time for each attempt
//!
//! Comes from a timeout *below* this layer; all attempts together are bounded by one above:
//!
//! ```
//! # fn main() -> Result<(), mesh_resilience::ConfigError> {
//! # use mesh_resilience::classify::ErrorClassifier;
//! # use mesh_resilience::retry::{Budget, BudgetConfig, RetryConfig, RetryLayer};
//! # #[cfg(feature = "timeout")] {
//! use mesh_resilience::timeout::TimeoutLayer;
//! # use std::time::Duration;
//!
//! # let budget = Budget::new(BudgetConfig::default())?;
//! let layers = (
//!     TimeoutLayer::total(Duration::from_secs(30))?,
//!     RetryLayer::new(RetryConfig::default(), budget, ErrorClassifier::new())?,
//!     TimeoutLayer::within_deadline(Duration::from_secs(5))?, // per attempt
//! );
//! # drop(layers); }
//! # Ok(()) }
//! ```
//!
//! # Services that call services
//!
//! A budget bounds what one hop adds. Where every hop of a chain retries, the factors multiply: three hops with 20 % each
//! make 1.2³ = 1.73 requests of one while the last service is down. Two rules keep the whole tree near the factor of one
//! hop:
//!
//! - *Up the chain*: an answer that failed because a call further down failed, after the retry layer there had its turn,
//!   says so: set `classify::X_MESH_RETRY` to `RETRY_NEVER`. Then only the hop right above the fault retries. (gRPC
//!   servers say the same with a negative `grpc-retry-pushback-ms`.) `HttpClassifier` obeys both.
//! - *Down the chain*: a retry carries its number in `replay::X_MESH_ATTEMPT`. A service gives the calls that it makes
//!   for a request the attempt of that request ([`Attempt::of`], [`Replay::attempt`]); if that is a retry they earn no budget
//!   and are not repeated again ([`Stop::Repeated`]). This bounds the tree also where answers lose their fields: what
//!   each hop adds is added and no more multiplied, 1 + 3 × 0.2 = 1.6.
//!
//! `http::Request` with a body that is `Clone` does its part by itself.
//!
//! # Sources
//!
//! - Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
//! - Beyer et al., "Site Reliability Engineering", chapter 21, "Handling Overload" (retry budgets) and chapter 22,
//!   "Retries" (retry at one level only; "overloaded; don't retry"); Finagle's `RetryBudget`.
//! - gRPC proposal A6, "Client Retries" (`grpc-retry-pushback-ms`).
//! - RFC 9110 section 9.2.2 (idempotent methods), 10.2.3 (`Retry-After`).
//!
//! [`Retryable::Always`]: crate::classify::Retryable::Always

mod config;
mod policy;
mod service;

use std::time::Duration;

pub use self::config::RetryConfig;
pub use self::policy::Stop;
pub use self::service::{ResponseFuture, Retry, RetryLayer};
pub use crate::budget::{Budget, BudgetConfig, BudgetSnapshot};
pub use crate::replay::{Attempt, Replay};

/// Is told what a retry layer does, for metrics.
pub trait Observe: Send + Sync {
    /// Attempt number `attempt` will start after `delay`.
    fn retrying(&self, attempt: u32, delay: Duration) {
        let _ = (attempt, delay);
    }

    /// A call that failed is not repeated.
    fn gave_up(&self, attempts: u32, reason: Stop) {
        let _ = (attempts, reason);
    }
}
