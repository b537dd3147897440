//! Hedge: a second attempt where the first is slow, and the answer of whichever is faster.
//!
//! ```text
//!             delay is over,                 success, or an error that
//!             or the first failed            another attempt can't better
//!   FIRST ──────────────────────▶ BOTH ───────────────────────────────▶ ANSWER, the other is dropped at once
//!     │                            │  ▲
//!     │ success, final error       └──┘ an error that another attempt may better: the other goes on
//!     ▼
//!   ANSWER
//! ```
//!
//! *First* and *second* are the two attempts of a call; there are never more. A call is hedged only where
//!
//! - its request is idempotent and can be copied ([`Replay`](crate::replay::Replay));
//! - it is no retry itself, here or further up ([`Attempt`](crate::replay::Attempt));
//! - the second attempt would start before its deadline;
//! - the [`Budget`] has one left. The first attempts earn it.
//!
//! The *delay* is what most of the recent calls ([`HedgeConfig::quantile`]) took at most. A call that the second attempt won
//! counts as one that took at least as long as its first attempt had run.
//! A first attempt that failed lets the second start at once, or when its `Retry-After` says, if that is within
//! [`HedgeConfig::max_delay`]. An error is final where its classifier says so: the caller's own (4xx), and what can't be
//! bettered by repeating it ([`Retryable::Never`](crate::classify::Retryable::Never)).
//! When both fail, the later error is the answer. What a dropped attempt would have said counts nowhere.
//!
//! It belongs below a retry layer, whose budget [`Hedge::sharing`] can share, and above the breaker and the balancer, so that
//! the second attempt goes elsewhere.
//!
//! *Cancel safety*: a dropped response future drops both attempts.
//!
//! # Sources
//!
//! - Dean, Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013, "Hedged requests".
//! - gRPC proposal A6, "Hedging policy" (which errors are final, the next attempt at once, server pushback).

mod config;
mod latencies;
mod race;
mod service;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::latencies::Latencies;
use crate::budget::Budget;
use crate::error::ConfigError;

pub use self::config::HedgeConfig;
pub use self::service::{HedgeLayer, HedgeService, ResponseFuture};

/// Is told what a hedge does, for metrics.
pub trait Observe: Send + Sync {
    /// A second attempt starts, `after` the first did.
    fn hedged(&self, after: Duration) {
        let _ = after;
    }

    /// A second attempt gave the answer of its call.
    fn won(&self) {}

    /// A second attempt was due, and the budget had none left.
    fn refused(&self) {}
}

/// What all hedged calls to a service share. Clones are the same.
#[derive(Clone)]
pub struct Hedge {
    shared: Arc<Shared>,
}

struct Shared {
    config: HedgeConfig,
    budget: Budget,
    also: Option<Budget>,
    latencies: Mutex<Latencies>,
    counts: Counts,
    observer: Option<Arc<dyn Observe>>,
}

#[derive(Debug, Default)]
struct Counts {
    hedged: AtomicU64,
    won: AtomicU64,
    refused: AtomicU64,
}

/// What a hedge has done, for people to read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// How long a first attempt is waited for now.
    pub delay: Duration,
    /// Second attempts so far.
    pub hedged: u64,
    /// Those of them that gave the answer.
    pub won: u64,
    /// Those that the budget did not allow.
    pub refused: u64,
}

impl Hedge {
    /// Hedges within `budget`, for which [`HedgeConfig::budget`] has the usual figures.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`HedgeConfig`] for their ranges.
    pub fn new(config: HedgeConfig, budget: Budget) -> Result<Self, ConfigError> {
        config.check()?;
        let shared = Shared {
            latencies: Mutex::new(Latencies::new(&config)),
            config,
            budget,
            also: None,
            counts: Counts::default(),
            observer: None,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Takes each second attempt out of `budget` too, to which the first ones add nothing here: that of a retry layer above,
    /// so that repeats of both kinds together stay within it. What was counted so far is forgotten.
    #[must_use]
    pub fn sharing(self, budget: Budget) -> Self {
        let mut shared = self.shared.fresh();
        shared.also = Some(budget);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Reports to `observer`. What was counted so far is forgotten.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observe>) -> Self {
        let mut shared = self.shared.fresh();
        shared.observer = Some(observer);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns how it stands.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        Snapshot {
            delay: self.delay(now),
            hedged: read(&counts.hedged),
            won: read(&counts.won),
            refused: read(&counts.refused),
        }
    }

    fn delay(&self, now: Instant) -> Duration {
        let shared = &self.shared;
        shared.latencies.lock().delay(&shared.config, now)
    }

    fn record(&self, latency: Duration, now: Instant) {
        self.shared.latencies.lock().record(latency, now);
    }

    /// Takes a second attempt out of the budgets.
    fn try_hedge(&self, after: Duration, now: Instant) -> bool {
        let shared = &self.shared;
        // The narrower first; where the wider has none left, one of the narrower is lost, which errs towards less load.
        let is_allowed = shared.budget.try_retry(now)
            && shared.also.as_ref().is_none_or(|also| also.try_retry(now));
        let count = if is_allowed {
            &shared.counts.hedged
        } else {
            &shared.counts.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &shared.observer {
            if is_allowed {
                observer.hedged(after);
            } else {
                observer.refused();
            }
        }
        is_allowed
    }

    fn won(&self) {
        self.shared.counts.won.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.shared.observer {
            observer.won();
        }
    }
}

impl Shared {
    fn fresh(&self) -> Self {
        Self {
            config: self.config.clone(),
            budget: self.budget.clone(),
            also: self.also.clone(),
            latencies: Mutex::new(Latencies::new(&self.config)),
            counts: Counts::default(),
            observer: self.observer.clone(),
        }
    }
}

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("config", &self.shared.config)
            .field("counts", &self.shared.counts)
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Hedge>();
};
