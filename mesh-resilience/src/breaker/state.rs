//! The breaker as a state machine: no clock, no lock, no randomness of its own.

use std::time::{Duration, Instant};

use super::window::RecentCalls;
use super::{BreakerConfig, BreakerOpen, Snapshot, State};
use crate::classify::Outcome;
use crate::random::Random;

/// States, counters, and the number of changes so far.
#[derive(Debug)]
pub(super) struct Machine {
    config: BreakerConfig,
    phase: Phase,
    /// Goes up with every change of state, so that a result from before a change is told apart and not counted.
    generation: u64,
    opened: u64,
    failed: Option<RecentCalls>,
    slow: Option<RecentCalls>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        in_flight: u32,
        successes: u32,
        /// When the last probe was let through.
        last: Instant,
    },
}

/// What an admitted call carries until its result is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) is_probe: bool,
}

/// How an admitted call ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    pub(super) now: Instant,
}

impl Machine {
    pub(super) fn new(config: BreakerConfig) -> Self {
        let failed = config.success_rate.as_ref().map(|rate| rate.window);
        let slow = config.slow_calls.as_ref().map(|slow| slow.window);
        Self {
            config,
            phase: Phase::Closed { failures: 0 },
            generation: 0,
            opened: 0,
            failed: failed.map(RecentCalls::new),
            slow: slow.map(RecentCalls::new),
        }
    }

    /// Lets a call pass or refuses it; the first call after the open time makes the breaker half-open.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        random: &dyn Random,
    ) -> Result<Ticket, BreakerOpen> {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(BreakerOpen::new(until - now));
            }
            self.enter(Phase::HalfOpen {
                in_flight: 0,
                successes: 0,
                last: now,
            });
        }
        let most = self.config.half_open_requests.get();
        let is_probe = match &mut self.phase {
            Phase::HalfOpen {
                in_flight, last, ..
            } if *in_flight >= most => {
                let hung = now.saturating_duration_since(*last);
                if hung < self.config.probe_timeout {
                    return Err(BreakerOpen::new(NEXT_PROBE));
                }
                self.open(now, random);
                return Err(BreakerOpen::new(self.open_for(now)));
            }
            Phase::HalfOpen {
                in_flight, last, ..
            } => {
                *in_flight += 1;
                *last = now.max(*last);
                true
            }
            Phase::Closed { .. } | Phase::Open { .. } => false,
        };
        Ok(Ticket {
            generation: self.generation,
            is_probe,
        })
    }

    /// Takes in the result of an admitted call. One from an earlier generation is about a time that is over.
    pub(super) fn record(&mut self, ticket: Ticket, ended: &Ended, random: &dyn Random) {
        if ticket.generation != self.generation {
            return;
        }
        let is_slow = self
            .config
            .slow_calls
            .as_ref()
            .is_some_and(|slow| ended.took > slow.longer_than);
        let opens = match &mut self.phase {
            Phase::Closed { failures } => {
                let is_failure = match ended.outcome {
                    Outcome::Success => false,
                    Outcome::Failure => true,
                    Outcome::CallerError | Outcome::Unknown => return,
                };
                *failures = if is_failure {
                    failures.saturating_add(1)
                } else {
                    0
                };
                let fails_in_a_row = *failures >= self.config.threshold.get();
                let fails = self.fails_too_often(is_failure, ended.now);
                let is_slow = self.is_slow_too_often(is_slow, ended.now);
                fails_in_a_row || fails || is_slow
            }
            Phase::HalfOpen {
                in_flight,
                successes,
                ..
            } => {
                *in_flight = in_flight.saturating_sub(1);
                let is_success = ended.outcome == Outcome::Success;
                *successes += u32::from(is_success && !is_slow);
                if *successes >= self.config.successes_to_close.get() {
                    self.enter(Phase::Closed { failures: 0 });
                    return;
                }
                ended.outcome == Outcome::Failure || is_success && is_slow
            }
            Phase::Open { .. } => false,
        };
        if opens {
            self.open(ended.now, random);
        }
    }

    /// Forgets an admitted call whose result nobody waits for.
    pub(super) const fn abandon(&mut self, ticket: Ticket) {
        if let Phase::HalfOpen { in_flight, .. } = &mut self.phase
            && ticket.generation == self.generation
        {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// Opens the breaker, whatever it was.
    pub(super) fn open(&mut self, now: Instant, random: &dyn Random) {
        let until = now + self.jittered(random.unit());
        self.opened += 1;
        self.enter(Phase::Open { until });
    }

    /// Closes the breaker, whatever it was, and forgets what it counted.
    pub(super) fn close(&mut self) {
        self.enter(Phase::Closed { failures: 0 });
    }

    /// Returns the state that a call made `now` would find.
    pub(super) fn state(&self, now: Instant) -> State {
        match self.phase {
            Phase::Open { until } if now >= until => State::HalfOpen,
            _ => self.phase(),
        }
    }

    /// Returns the state as of the last call.
    pub(super) const fn phase(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the failures in a row, zero unless closed.
    pub(super) const fn failures(&self) -> u32 {
        match self.phase {
            Phase::Closed { failures } => failures,
            Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        }
    }

    pub(super) fn open_for(&self, now: Instant) -> Duration {
        match self.phase {
            Phase::Open { until } => until.saturating_duration_since(now),
            Phase::Closed { .. } | Phase::HalfOpen { .. } => Duration::ZERO,
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let probes = match self.phase {
            Phase::HalfOpen { in_flight, .. } => in_flight,
            Phase::Closed { .. } | Phase::Open { .. } => 0,
        };
        Snapshot {
            state: self.state(now),
            failures: self.failures(),
            succeeded: self.failed.as_ref().map(|calls| calls.bad_at(now).others()),
            slow: self.slow.as_ref().map(|calls| calls.bad_at(now)),
            probes,
            retry_after: self.open_for(now),
            opened: self.opened,
        }
    }

    /// Counts a call, and returns whether too few succeed.
    fn fails_too_often(&mut self, is_failure: bool, now: Instant) -> bool {
        let (Some(calls), Some(rule)) = (&mut self.failed, &self.config.success_rate) else {
            return false;
        };
        calls.record(is_failure, now);
        if !is_failure {
            return false;
        }
        let succeeded = calls.bad().others();
        succeeded.of >= u64::from(rule.min_volume.get()) && succeeded.ratio() < rule.min_ratio
    }

    /// Counts a call, and returns whether too many are slow.
    fn is_slow_too_often(&mut self, is_slow: bool, now: Instant) -> bool {
        let (Some(calls), Some(rule)) = (&mut self.slow, &self.config.slow_calls) else {
            return false;
        };
        calls.record(is_slow, now);
        if !is_slow {
            return false;
        }
        let slow = calls.bad();
        slow.of >= u64::from(rule.min_volume.get()) && slow.ratio() >= rule.max_ratio
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        let windows = [&mut self.failed, &mut self.slow];
        for calls in windows.into_iter().flatten() {
            calls.clear();
        }
    }

    /// Spreads the open time evenly over `open_for * (1 ± jitter_ratio)`, for `unit` in `0.0..1.0`.
    fn jittered(&self, unit: f64) -> Duration {
        let factor = (2.0 * unit - 1.0).mul_add(self.config.jitter_ratio, 1.0);
        // A year is as good as forever, and keeps the sum with any clock reading representable.
        self.config.open_for.min(MAX_OPEN_FOR).mul_f64(factor)
    }
}

/// What a caller is told who finds all probes under way: the shortest `Retry-After` there is.
const NEXT_PROBE: Duration = Duration::from_secs(1);
const MAX_OPEN_FOR: Duration = Duration::from_hours(24 * 365);
