//! What is known of one endpoint: calls in flight, recent failures, ejection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// An element of the list that a [`Picker`](super::Picker) picks from.
pub trait Endpoint {
    /// Returns the endpoint's shared state.
    fn state(&self) -> &EndpointState;

    /// Returns the endpoint's share of the traffic relative to the others; 0 counts as 1. Default 1.
    fn weight(&self) -> u32 {
        1
    }
}

impl Endpoint for Arc<EndpointState> {
    fn state(&self) -> &EndpointState {
        self
    }
}

/// Load and health of one endpoint, shared by all that call it.
#[derive(Debug)]
pub struct EndpointState {
    epoch: Instant,
    in_flight: AtomicU32,
    failures_in_row: AtomicU32,
    /// Failure ratio (upper half, a fraction of 2^32) and when it was that (lower half, in eighths of a second).
    failing: AtomicU64,
    /// End of the latest ejection, in milliseconds since `epoch`.
    ejected_until: AtomicU64,
    /// How many ejections the next one is lengthened by.
    ejections: Mutex<u32>,
}

impl EndpointState {
    /// Creates the state of an endpoint that is new and healthy.
    pub const fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            in_flight: AtomicU32::new(0),
            failures_in_row: AtomicU32::new(0),
            failing: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: Mutex::new(0),
        }
    }

    /// Counts a call as in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight {
            state: Arc::clone(self),
        }
    }

    /// Returns the calls in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the failures since the last success.
    pub fn failures_in_row(&self) -> u32 {
        self.failures_in_row.load(Ordering::Relaxed)
    }

    /// Returns whether the endpoint is ejected.
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Ordering::Acquire);
        until != 0 && self.millis(now) < until
    }

    /// Returns how much longer the endpoint is ejected; nothing where it is not.
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let until = self.ejected_until.load(Ordering::Acquire);
        let left = until.checked_sub(self.millis(now))?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Returns the part of the recent calls that failed, in `0.0..=1.0`; halved every 5 s without calls.
    pub fn failure_ratio(&self, now: Instant) -> f64 {
        let failing = self.failing.load(Ordering::Relaxed);
        if failing == 0 {
            return 0.0;
        }
        f64::from(decayed(failing, self.eighths(now))) / f64::from(u32::MAX)
    }

    /// Returns the load to compare: calls per share of the traffic, made larger by recent failures.
    pub(super) fn cost(&self, share: f64, now: Instant) -> f64 {
        let failing = self.failure_ratio(now);
        let penalty = (PENALTY * failing).mul_add(failing, 1.0);
        // Without calls and failures the cost is the same for every weight, so that the draw by weight decides.
        (f64::from(self.in_flight()) / share + 1.0) * penalty
    }

    pub(super) fn succeeded(&self, now: Instant) {
        if self.failures_in_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_row.store(0, Ordering::Relaxed);
        }
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.average(now, |ratio| ratio - ratio.div_ceil(SAMPLES));
        }
    }

    /// Returns the failures in a row, this one included.
    pub(super) fn failed(&self, now: Instant) -> u32 {
        self.average(now, |ratio| ratio + (u32::MAX - ratio) / SAMPLES);
        self.failures_in_row
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// Ejects the endpoint for `base` times the number of recent ejections, at most `max`.
    ///
    /// The number goes down by one for each `interval` that the endpoint was in service.
    pub(super) fn eject(
        &self,
        base: Duration,
        max: Duration,
        interval: Duration,
        now: Instant,
    ) -> Duration {
        let mut ejections = self.ejections.lock();
        let ended = self.ejected_until.load(Ordering::Acquire);
        let served = u128::from(self.millis(now).saturating_sub(ended));
        let forgiven = served / interval.as_millis().max(1);
        *ejections = ejections
            .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
            .saturating_add(1);
        let ejection = base.saturating_mul(*ejections).min(max.max(base));
        let until = self
            .millis(now)
            .saturating_add(u64::try_from(ejection.as_millis()).unwrap_or(u64::MAX));
        self.ejected_until.store(until, Ordering::Release);
        self.failures_in_row.store(0, Ordering::Relaxed);
        ejection
    }

    fn average(&self, now: Instant, step: impl Fn(u32) -> u32) {
        let now = self.eighths(now);
        let update = |failing| {
            let ratio = step(decayed(failing, now));
            Some(if ratio == 0 {
                0
            } else {
                u64::from(ratio) << 32 | u64::from(now)
            })
        };
        // The closure always gives a value, so both arms are the value before.
        match self
            .failing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
        {
            Ok(_) | Err(_) => {}
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    fn eighths(&self, now: Instant) -> u32 {
        u32::try_from(self.millis(now) / 125).unwrap_or(u32::MAX)
    }
}

/// Halves the ratio in `failing` for each half-life since then, in a straight line in between.
fn decayed(failing: u64, now: u32) -> u32 {
    let [ratio, since] = [failing >> 32, failing & u64::from(u32::MAX)];
    let age = u64::from(now).saturating_sub(since);
    let half_lives = age / HALF_LIFE;
    if half_lives >= 32 {
        return 0;
    }
    let ratio = ratio >> half_lives;
    let left = ratio - ratio * (age % HALF_LIFE) / (2 * HALF_LIFE);
    u32::try_from(left).unwrap_or(u32::MAX)
}

/// A call in flight.
#[derive(Debug)]
#[must_use = "the call counts until the guard is dropped"]
pub struct InFlight {
    state: Arc<EndpointState>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Weight of the failure ratio in the load: an endpoint that always fails looks 65 times as loaded.
const PENALTY: f64 = 64.0;
/// Calls that the failure ratio is averaged over.
const SAMPLES: u32 = 8;
/// 5 s in eighths of a second: long enough to matter at one call a second, and short of an ejection.
const HALF_LIFE: u64 = 40;
