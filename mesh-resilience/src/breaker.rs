//! Circuit breaker: stops calling a service that fails, and tries it again carefully.
//!
//! ```text
//!            threshold failures in a row,
//!            success rate too low,
//!            or too many slow calls                open_for is over
//!   CLOSED ───────────────────────────────▶ OPEN ───────────────────▶ HALF-OPEN
//!     ▲                                       ▲                         │    │
//!     │                                       └─────────────────────────┘    │
//!     │                           a probe fails, is slow, or hangs           │
//!     └──────────────────────────────────────────────────────────────────────┘
//!                             successes_to_close successes
//! ```
//!
//! # Terms
//!
//! *Closed*: calls pass. *Open*: calls are refused with [`BreakerOpen`], at once. *Half-open*: a few calls pass, as
//! *probes*; the rest are refused. *Success* and *failure* are what a [`Classify`](crate::classify::Classify) says; what
//! is the caller's own mistake is neither, and so is a call that was dropped from above. *Slow*: took longer than
//! [`SlowCalls::longer_than`], whether it succeeded or failed. *In a row*: with no success between. What was called before
//! a change of state counts no more after it.
//!
//! # What a probe may do
//!
//! | probe | the breaker |
//! |---|---|
//! | succeeds | closes, at the `successes_to_close`-th one |
//! | fails | opens again |
//! | succeeds, but slowly (with [`SlowCalls`]) | opens again: the service still is what it was left for |
//! | is dropped, or ends as the caller's mistake | gives its place to another |
//! | hangs | see below |
//!
//! Put timeouts *below* the breaker, so that a call that hangs ends as a failure. Where none is, or it is longer than
//! [`BreakerConfig::probe_timeout`], hung probes do not keep the breaker half-open for ever: once all places have been
//! taken for that long, the next call finds it open again.
//!
//! # Slow calls
//!
//! A service that answers, but too late to be of use, holds callers as one that hangs does. [`SlowCalls`] opens the
//! breaker when their share of the calls reaches a bound. A slow success is no failure: it breaks a row of failures, and
//! counts for the success rate.
//!
//! # Cost
//!
//! A call through a closed breaker takes no lock, allocates nothing and reads no clock: a few atomic reads, and the count
//! of references to the breaker up and down. Where successes are counted too ([`SuccessRate`], [`SlowCalls`]) it takes a lock at its end.
//!
//! *Cancel safety*: a dropped response future releases its place.
//!
//! # Sources
//!
//! - Nygard, "Release It!", 2nd edition, chapter 5 (the states).
//! - Envoy, "Outlier detection" (success rate with a minimum volume).
//! - `resilience4j`, "`CircuitBreaker`" (`slowCallDurationThreshold`, `slowCallRateThreshold`; slow calls while half-open).

mod config;
mod service;
mod state;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::state::{Ended, Machine, Ticket};
use crate::classify::Outcome;
use crate::error::ConfigError;
use crate::random::{Random, SplitMix64};

pub use self::config::{BreakerConfig, SlowCalls, SuccessRate};
pub use self::service::{BreakerLayer, BreakerService, ResponseFuture};
pub use self::window::Share;
pub use crate::refusal::BreakerOpen;

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

/// A breaker as it stands, for people.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What it does with the next call.
    pub state: State,
    /// Failures in a row; zero unless closed.
    pub failures: u32,
    /// Calls within the window that succeeded. None where the success rate is not watched.
    pub succeeded: Option<Share>,
    /// Calls within the window that were slow. None where slow calls are not watched.
    pub slow: Option<Share>,
    /// Probes under way; zero unless half-open.
    pub probes: u32,
    /// How long until a probe may pass; zero unless open.
    pub retry_after: Duration,
    /// How often it has opened so far.
    pub opened: u64,
}

/// Is told what a breaker does, for metrics.
pub trait Observe: Send + Sync {
    /// The breaker went from one state to another.
    ///
    /// Called with the breaker's lock held, so that changes arrive in order: be quick, and don't call the breaker.
    fn state_changed(&self, from: State, to: State) {
        let _ = (from, to);
    }

    /// A call was refused.
    fn refused(&self) {}
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
    /// Whether calls are timed.
    is_timed: bool,
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
        let counts_successes = config.success_rate.is_some() || config.slow_calls.is_some();
        let is_timed = config.slow_calls.is_some();
        let machine = Machine::new(config);
        let shared = Shared {
            word: AtomicU64::new(word(&machine)),
            failures: AtomicU32::new(0),
            counts_successes,
            is_timed,
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
        self.admit(|| now)
    }

    /// As [`Breaker::try_acquire`], reading the clock only where the time matters.
    fn admit(&self, clock: impl FnOnce() -> Instant) -> Result<Permit, BreakerOpen> {
        let word = self.shared.word.load(Ordering::Acquire);
        let (ticket, started) = if is_closed(word) {
            let ticket = Ticket {
                generation: generation(word),
                is_probe: false,
            };
            (ticket, self.shared.is_timed.then(clock))
        } else {
            let now = clock();
            let admitted = self
                .shared
                .change(|machine, random| machine.admit(now, random));
            let ticket = admitted.inspect_err(|_| self.shared.refused())?;
            (ticket, Some(now))
        };
        Ok(Permit {
            breaker: self.clone(),
            ticket,
            started,
            is_settled: false,
        })
    }

    /// Opens the breaker by hand, from any state; probes pass after the usual time.
    pub fn trip(&self, now: Instant) {
        self.shared
            .change(|machine, random| machine.open(now, random));
    }

    /// Closes the breaker by hand, from any state; all that was counted is forgotten.
    pub fn reset(&self) {
        self.shared.change(|machine, _| machine.close());
    }

    /// Returns all that is to know about the breaker.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.shared.machine.lock().snapshot(now)
    }

    /// Returns what the breaker would do with a call made `now`.
    ///
    /// An open breaker whose time is over is already [`State::HalfOpen`] here, though an [`Observe`] hears of it with the
    /// first probe.
    pub fn state(&self, now: Instant) -> State {
        if self.is_closed() {
            State::Closed
        } else {
            self.shared.machine.lock().state(now)
        }
    }

    /// Returns how long until an open breaker lets a probe pass; zero in any other state.
    pub fn retry_after(&self, now: Instant) -> Duration {
        if self.is_closed() {
            Duration::ZERO
        } else {
            self.shared.machine.lock().open_for(now)
        }
    }

    fn is_closed(&self) -> bool {
        is_closed(self.shared.word.load(Ordering::Acquire))
    }

    /// Refuses a call without asking the machine.
    fn refuse(&self, now: Instant) -> BreakerOpen {
        self.shared.refused();
        BreakerOpen::new(self.retry_after(now))
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

    fn refused(&self) {
        if let Some(observer) = &self.observer {
            observer.refused();
        }
    }

    /// Returns whether a result leaves everything as it is, so that it needs neither the lock nor the time.
    fn changes_nothing(&self, ticket: Ticket, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Success => {
                !self.counts_successes
                    && !ticket.is_probe
                    && (self.failures.load(Ordering::Acquire) == 0
                        || self.word.load(Ordering::Acquire) != closed_word(ticket.generation))
            }
            Outcome::Failure => false,
            Outcome::CallerError | Outcome::Unknown => !ticket.is_probe,
        }
    }
}

/// Leave to make one call.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts for nothing"]
pub struct Permit {
    breaker: Breaker,
    ticket: Ticket,
    /// Where the time that the call takes matters.
    started: Option<Instant>,
    is_settled: bool,
}

impl Permit {
    /// Reports how the call went, which took from [`Breaker::try_acquire`] to `now`.
    pub fn record(self, outcome: Outcome, now: Instant) {
        self.settle(outcome, || now);
    }

    /// As [`Permit::record`], reading the clock only where the time matters.
    fn settle(mut self, outcome: Outcome, clock: impl FnOnce() -> Instant) {
        self.is_settled = true;
        let shared = &self.breaker.shared;
        if shared.changes_nothing(self.ticket, outcome) {
            return;
        }
        let now = clock();
        let began = self.started.unwrap_or(now);
        let ended = Ended {
            outcome,
            took: now.saturating_duration_since(began),
            now,
        };
        shared.change(|machine, random| machine.record(self.ticket, &ended, random));
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
