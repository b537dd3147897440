//! Circuit breaker: stops calling a service that fails, and tries it again carefully.
//!
//! ```text
//!            threshold failures in a row,
//!            or success rate too low               open_for is over
//!   CLOSED ───────────────────────────────▶ OPEN ───────────────────▶ HALF-OPEN
//!     ▲                                       ▲                          │   │
//!     │                                       └──────────────────────────┘   │
//!     │                                               any failure            │
//!     └──────────────────────────────────────────────────────────────────────┘
//!                             successes_to_close successes
//! ```
//!
//! Put timeouts *below* the breaker. A call that is dropped from above says nothing about the service: it counts as
//! neither success nor failure and gives its half-open slot back.
//!
//! *Cancel safety*: a dropped response future releases its slot.
//!
//! # Sources
//!
//! - Nygard, "Release It!", 2nd edition, chapter 5 (the states).
//! - Envoy, "Outlier detection" (success rate with a minimum volume).

mod config;
mod service;
mod state;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::state::{Machine, Ticket};
use crate::classify::Outcome;
use crate::error::ConfigError;
use crate::random::{Random, SplitMix64};

pub use self::config::{BreakerConfig, SuccessRate};
pub use crate::refusal::BreakerOpen;

pub use self::service::{BreakerLayer, BreakerService, ResponseFuture};

/// What a breaker does with the next call.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// Lets it pass.
    Closed,
    /// Refuses it.
    Open,
    /// Lets it pass as a probe, if not too many are under way.
    HalfOpen,
}

impl State {
    /// Returns the name used in headers and metrics: `CLOSED`, `OPEN` or `HALF-OPEN`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open => "OPEN",
            Self::HalfOpen => "HALF-OPEN",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Is told what a breaker does, for metrics.
///
/// Called with the breaker's lock held, so that changes arrive in order: be quick, and don't call the breaker.
pub trait Observe: Send + Sync {
    /// The breaker went from one state to another.
    fn state_changed(&self, from: State, to: State) {
        let _ = (from, to);
    }
}

/// One breaker, shared by all that call the same service (and route). Clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    /// Generation and state of the machine, so that a closed breaker is passed without a lock.
    word: AtomicU64,
    /// Failures in a row, so that a success that changes nothing needs no lock either.
    failures: AtomicU32,
    /// Whether successes are counted, which needs the lock.
    counts_successes: bool,
    machine: Mutex<Machine>,
    random: Arc<dyn Random>,
    observer: Option<Arc<dyn Observe>>,
}

impl Breaker {
    /// Creates a closed breaker with a jitter source of its own and no observer.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`BreakerConfig`] for their ranges.
    pub fn new(config: BreakerConfig) -> Result<Self, ConfigError> {
        Self::with_parts(config, Arc::new(SplitMix64::from_entropy()), None)
    }

    /// Creates a closed breaker that draws its jitter from `random` and reports to `observer`.
    ///
    /// # Errors
    ///
    /// As [`Breaker::new`].
    pub fn with_parts(
        config: BreakerConfig,
        random: Arc<dyn Random>,
        observer: Option<Arc<dyn Observe>>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let counts_successes = config.success_rate.is_some();
        let machine = Machine::new(config);
        let shared = Shared {
            word: AtomicU64::new(word(&machine)),
            failures: AtomicU32::new(0),
            counts_successes,
            machine: Mutex::new(machine),
            random,
            observer,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Asks to make a call.
    ///
    /// Report how it went with [`Permit::record`]; a permit that is dropped without counts for nothing.
    ///
    /// # Errors
    ///
    /// [`BreakerOpen`] when the call must not be made.
    pub fn try_acquire(&self, now: Instant) -> Result<Permit, BreakerOpen> {
        let word = self.shared.word.load(Ordering::Acquire);
        let ticket = if is_closed(word) {
            Ticket {
                generation: generation(word),
                is_probe: false,
            }
        } else {
            self.shared.change(|machine, _| machine.admit(now))?
        };
        Ok(Permit {
            breaker: self.clone(),
            ticket,
            is_settled: false,
        })
    }

    /// Returns what the breaker would do with a call made `now`.
    ///
    /// An open breaker whose time is over is already [`State::HalfOpen`] here, though an [`Observe`] hears of it with the
    /// first probe.
    pub fn state(&self, now: Instant) -> State {
        if is_closed(self.shared.word.load(Ordering::Acquire)) {
            State::Closed
        } else {
            self.shared.machine.lock().state(now)
        }
    }

    /// Returns how long until an open breaker lets a probe pass; zero in any other state.
    pub fn retry_after(&self, now: Instant) -> Duration {
        if is_closed(self.shared.word.load(Ordering::Acquire)) {
            Duration::ZERO
        } else {
            self.shared.machine.lock().open_for(now)
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("machine", &self.shared.machine)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Runs `step` on the machine, publishes the outcome for the lock-free path and reports a change of state.
    fn change<T>(&self, step: impl FnOnce(&mut Machine, &dyn Random) -> T) -> T {
        let mut machine = self.machine.lock();
        let before = machine.phase();
        let result = step(&mut machine, &*self.random);
        self.failures.store(machine.failures(), Ordering::Release);
        self.word.store(word(&machine), Ordering::Release);
        let after = machine.phase();
        if let Some(observer) = self.observer.as_ref().filter(|_| before != after) {
            observer.state_changed(before, after);
        }
        result
    }

    fn record(&self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let changes_nothing = match outcome {
            Outcome::Success => {
                !self.counts_successes
                    && !ticket.is_probe
                    && (self.failures.load(Ordering::Acquire) == 0
                        || self.word.load(Ordering::Acquire) != closed_word(ticket.generation))
            }
            Outcome::Failure => false,
            Outcome::CallerError | Outcome::Unknown => !ticket.is_probe,
        };
        if !changes_nothing {
            self.change(|machine, random| machine.record(ticket, outcome, now, random));
        }
    }
}

/// Leave to make one call.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts for nothing"]
pub struct Permit {
    breaker: Breaker,
    ticket: Ticket,
    is_settled: bool,
}

impl Permit {
    /// Reports how the call went.
    pub fn record(mut self, outcome: Outcome, now: Instant) {
        self.is_settled = true;
        self.breaker.shared.record(self.ticket, outcome, now);
    }

    /// Returns whether this call is one of the few that a half-open breaker lets through.
    pub const fn is_probe(&self) -> bool {
        self.ticket.is_probe
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A call that was abandoned gives its slot back.
        if !self.is_settled && self.ticket.is_probe {
            self.breaker
                .shared
                .change(|machine, _| machine.abandon(self.ticket));
        }
    }
}

const fn closed_word(generation: u64) -> u64 {
    generation << 1 | 1
}

fn word(machine: &Machine) -> u64 {
    machine.generation() << 1 | u64::from(machine.phase() == State::Closed)
}

const fn is_closed(word: u64) -> bool {
    word & 1 == 1
}

const fn generation(word: u64) -> u64 {
    word >> 1
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Breaker>();
    assert_send_sync::<Permit>();
};
