//! The breaker as a state machine: no clock, no lock, no randomness of its own.

use std::time::{Duration, Instant};

use super::{BreakerConfig, BreakerOpen, State, SuccessRate};
use crate::classify::Outcome;
use crate::random::Random;

/// States, counters, and the number of changes so far.
#[derive(Debug)]
pub(super) struct Machine {
    config: BreakerConfig,
    phase: Phase,
    /// Goes up with every change of state, so that a result from before a change is told apart and not counted.
    generation: u64,
    rate: Option<RateWindow>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { in_flight: u32, successes: u32 },
}

/// What an admitted call carries until its result is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) is_probe: bool,
}

impl Machine {
    pub(super) fn new(config: BreakerConfig) -> Self {
        let rate = config.success_rate.clone().map(RateWindow::new);
        Self {
            config,
            phase: Phase::Closed { failures: 0 },
            generation: 0,
            rate,
        }
    }

    /// Lets a call pass or refuses it; the first call after the open time makes the breaker half-open.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Ticket, BreakerOpen> {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(BreakerOpen::new(until - now));
            }
            self.enter(Phase::HalfOpen {
                in_flight: 0,
                successes: 0,
            });
        }
        let is_probe = match &mut self.phase {
            Phase::HalfOpen { in_flight, .. }
                if *in_flight >= self.config.half_open_requests.get() =>
            {
                return Err(BreakerOpen::new(NEXT_PROBE));
            }
            Phase::HalfOpen { in_flight, .. } => {
                *in_flight += 1;
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
    pub(super) fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        random: &dyn Random,
    ) {
        if ticket.generation != self.generation {
            return;
        }
        let opens = match &mut self.phase {
            Phase::Closed { failures } => {
                let (counted, is_success) = match outcome {
                    Outcome::Success => (0, true),
                    Outcome::Failure => (failures.saturating_add(1), false),
                    Outcome::CallerError | Outcome::Unknown => return,
                };
                *failures = counted;
                let rate_is_low = self
                    .rate
                    .as_mut()
                    .is_some_and(|rate| rate.record(is_success, now));
                rate_is_low || counted >= self.config.threshold.get()
            }
            Phase::HalfOpen {
                in_flight,
                successes,
            } => {
                *in_flight = in_flight.saturating_sub(1);
                *successes += u32::from(outcome == Outcome::Success);
                if *successes >= self.config.successes_to_close.get() {
                    self.enter(Phase::Closed { failures: 0 });
                    return;
                }
                outcome == Outcome::Failure
            }
            Phase::Open { .. } => false,
        };
        if opens {
            let until = now + self.jittered(random.unit());
            self.enter(Phase::Open { until });
        }
    }

    /// Forgets an admitted call whose result nobody waits for.
    pub(super) fn abandon(&mut self, ticket: Ticket) {
        if let Phase::HalfOpen { in_flight, .. } = &mut self.phase
            && ticket.generation == self.generation
        {
            *in_flight = in_flight.saturating_sub(1);
        }
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

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        if let Some(rate) = &mut self.rate {
            rate.clear();
        }
    }

    /// Spreads the open time evenly over `open_for * (1 ± jitter_ratio)`, for `unit` in `0.0..1.0`.
    fn jittered(&self, unit: f64) -> Duration {
        let factor = (2.0 * unit - 1.0).mul_add(self.config.jitter_ratio, 1.0);
        // A year is as good as forever, and keeps the sum with any clock reading representable.
        self.config.open_for.min(MAX_OPEN_FOR).mul_f64(factor)
    }
}

/// Successes and failures of the recent past, in tenths of the window.
#[derive(Debug)]
struct RateWindow {
    rule: SuccessRate,
    start: Option<Instant>,
    newest: u64,
    slots: [Counts; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    successes: u32,
    failures: u32,
}

impl RateWindow {
    fn new(rule: SuccessRate) -> Self {
        Self {
            rule,
            start: None,
            newest: 0,
            slots: [Counts::default(); SLOTS],
        }
    }

    /// Counts a result and returns whether the success rate is too low.
    fn record(&mut self, is_success: bool, now: Instant) -> bool {
        self.move_to(now);
        let slot = &mut self.slots[index(self.newest)];
        if is_success {
            slot.successes = slot.successes.saturating_add(1);
            return false;
        }
        slot.failures = slot.failures.saturating_add(1);
        let (successes, total) =
            self.slots
                .iter()
                .fold((0_u64, 0_u64), |(successes, total), slot| {
                    let ok = u64::from(slot.successes);
                    (successes + ok, total + ok + u64::from(slot.failures))
                });
        total >= u64::from(self.rule.min_volume.get())
            && ratio(successes, total) < self.rule.min_ratio
    }

    fn move_to(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let slot_nanos = (self.rule.window.as_nanos() / SLOTS as u128).max(1);
        let reached = now.saturating_duration_since(start).as_nanos() / slot_nanos;
        let reached = u64::try_from(reached).unwrap_or(u64::MAX).max(self.newest);
        for step in 1..=(reached - self.newest).min(SLOTS as u64) {
            self.slots[index(self.newest.wrapping_add(step))] = Counts::default();
        }
        self.newest = reached;
    }

    fn clear(&mut self) {
        self.slots = [Counts::default(); SLOTS];
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is below the number of slots"
)]
const fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[expect(clippy::cast_precision_loss, reason = "call counts are far below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

const SLOTS: usize = 10;
/// What a caller is told who finds all probes under way: the shortest `Retry-After` there is.
const NEXT_PROBE: Duration = Duration::from_secs(1);
const MAX_OPEN_FOR: Duration = Duration::from_hours(24 * 365);
