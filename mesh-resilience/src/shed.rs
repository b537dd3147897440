//! Shed: refuses at once what would only wait, so that a service under too much load keeps answering as fast as it can.
//!
//! The *limit* is how many calls may be under way together. Nobody configures it: it follows what calls take.
//!
//! ```text
//!                  limit reached and calls slow, again
//!        ┌──────────────────────────────────────────────────┐
//!   FOLLOW: limit = allowed + sqrt(allowed)               PROBE: limit = limit / 2, until calls get no faster
//!        ▲                                                  │
//!        └──────────────────────────────────────────────────┘
//!                  baseline is what they took then
//! ```
//!
//! - *latency*: the median of the calls that began in a window of [`ShedConfig::interval`].
//! - *baseline*: what a call takes unhindered. It follows the latency while the limit is not reached; while it is, a probe
//!   finds it, or the limit falls and calls get no faster for it.
//! - *slow*: longer than the baseline by more than [`ShedConfig::tolerance`].
//! - *allowed*: `limit * tolerance * baseline / latency`. By Little's law so many calls take `tolerance * baseline`. The
//!   square root on top finds out whether more is possible.
//!
//! The limit moves only in windows in which it was reached: a service that gets slow in the quiet sheds nothing.
//! Answers that are failures, and calls that the caller gave up, count only where they took too long already.
//!
//! It needs an application whose latency tells of its load. Calls that wait for something else to happen (long polling) look
//! like calls that wait in a queue. The place of a call is free again when the response is there, not when its body has ended.
//! A service that runs one or two calls at a time should set [`ShedConfig::max_limit`]: the first moments of an overload
//! fill the limit, before anything is known of it.
//!
//! # Figures
//!
//! On virtual time, for services of 8 to 64 workers that take 10 to 100 ms: at three times the capacity 93 to 99 % of it is
//! answered, with a 99th percentile of at most 1.6 times that at half the capacity; once calls take twice as long for good,
//! 94 to 99 %, at most 3.4 times that. Two seconds after an overload nothing is shed. `docs/decisions/load-shedding.md` has
//! the figures of the algorithms that were not taken.
//!
//! *Cancel safety*: a dropped response future frees its place.
//!
//! # Sources
//!
//! - Envoy, "Adaptive concurrency", gradient controller (the limit from latencies, the headroom, the median, the tolerance).
//! - Netflix `concurrency-limits`, `Gradient2Limit` (a limit that is not reached does not move).
//! - Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016 (finding the unhindered latency by
//!   sending less for a moment, at most every 10 s).
//! - Little, "A Proof for the Queuing Formula L = λW", Operations Research 9(3), 1961.

mod config;
mod limit;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::limit::Machine;
use crate::error::ConfigError;

pub use self::config::ShedConfig;
pub use self::service::{AllNormal, Prioritize, ResponseFuture, ShedLayer, ShedService};
pub use crate::refusal::Overloaded;

/// How much a call matters.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Priority {
    /// As any other.
    #[default]
    Normal,
    /// Passes where others are refused: a quarter of the limit comes on top for it.
    Critical,
}

/// Is told what is shed, for metrics.
pub trait Observe: Send + Sync {
    /// A call was refused.
    fn shed(&self, priority: Priority) {
        let _ = priority;
    }
}

/// The limit of one service, shared by all that call it. Clones are the same.
#[derive(Clone)]
pub struct Shed {
    machine: Arc<Mutex<Machine>>,
    observer: Option<Arc<dyn Observe>>,
}

/// Where a limit stands, for people to read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Calls that may be under way.
    pub limit: u32,
    /// Calls that are.
    pub in_flight: u32,
    /// What a call takes unhindered, as far as is known.
    pub baseline: Option<Duration>,
    /// Calls refused so far.
    pub shed: u64,
}

impl Shed {
    /// Creates a limit that knows nothing yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`ShedConfig`] for their ranges.
    pub fn new(config: ShedConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            machine: Arc::new(Mutex::new(Machine::new(config))),
            observer: None,
        })
    }

    /// Reports to `observer`, this clone and those made of it.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observe>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Lets a call begin.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when the limit is reached.
    pub fn try_acquire(&self, priority: Priority, now: Instant) -> Result<Permit, Overloaded> {
        if self.machine.lock().try_enter(priority, now) {
            return Ok(Permit {
                machine: Some(Arc::clone(&self.machine)),
                started: now,
            });
        }
        if let Some(observer) = &self.observer {
            observer.shed(priority);
        }
        Err(Overloaded::new(RETRY_AFTER))
    }

    /// Returns how it stands.
    pub fn snapshot(&self) -> Snapshot {
        let machine = self.machine.lock();
        Snapshot {
            limit: machine.limit(),
            in_flight: machine.in_flight(),
            baseline: machine.baseline(),
            shed: machine.shed(),
        }
    }
}

impl fmt::Debug for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// The place of one call. Dropped without a word, it is free and tells nothing.
#[must_use = "dropping a permit frees the place"]
pub struct Permit {
    /// `None` once it has been given back.
    machine: Option<Arc<Mutex<Machine>>>,
    started: Instant,
}

impl Permit {
    /// The service answered as it should.
    pub fn answered(mut self, now: Instant) {
        if let Some(machine) = self.machine.take() {
            machine.lock().answered(self.started, now);
        }
    }

    /// The service failed, or nobody waits for it any more.
    pub fn gave_up(mut self, now: Instant) {
        if let Some(machine) = self.machine.take() {
            machine.lock().given_up(self.started, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.lock().left(self.started);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

/// An overload that goes is over well within it, and `Retry-After` knows whole seconds only.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Shed>();
    assert_send_sync::<Permit>();
};
