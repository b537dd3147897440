//! What is known of one endpoint: calls in flight, recent failures and latency, ejection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::config::SlowStart;
use super::latency::Latency;
use super::outlier::{Ejection, OutlierConfig, Reason};

/// An element of the list that a [`Picker`](super::Picker) picks from.
pub trait Endpoint {
    /// Returns the endpoint's shared state.
    fn state(&self) -> &EndpointState;

    /// Returns the endpoint's share of the traffic relative to the others; 0 counts as 1. Default 1.
    fn weight(&self) -> u32 {
        1
    }

    /// Returns what the policies by hash know the endpoint by: unique in a list, and the same in every list and on every
    /// node. Default: nothing, and then its place in the list.
    fn key(&self) -> Option<&str> {
        None
    }

    /// Returns its priority: lower is used first. Default 0.
    fn priority(&self) -> u16 {
        0
    }

    /// Returns whether discovery and checks let it be called. Default: yes.
    fn is_usable(&self) -> bool {
        true
    }

    /// Returns the zone that it is in, for [`ZoneAware`](super::ZoneAware). Default: none.
    fn zone(&self) -> Option<&str> {
        None
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
    gateway_failures_in_row: AtomicU32,
    /// Failure ratio (upper half, a fraction of 2^32) and when it was that (lower half, in eighths of a second).
    failing: AtomicU64,
    /// End of the latest ejection, in milliseconds since `epoch`.
    ejected_until: AtomicU64,
    /// Since when it has been getting more, in milliseconds since `epoch`: see [`SlowStart`].
    ramp_from: AtomicU64,
    latency: Latency,
    /// Calls of the interval (upper half) and those of them that failed (lower half).
    interval: AtomicU64,
    ejected: Mutex<Ejected>,
}

/// What is known of its ejections.
#[derive(Debug)]
struct Ejected {
    /// How many the next one is lengthened by.
    recent: u32,
    /// The latest one.
    reason: Reason,
    /// Whether nobody was told yet that it is over.
    is_untold: bool,
}

impl EndpointState {
    /// Creates the state of an endpoint that is new and healthy.
    pub const fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            in_flight: AtomicU32::new(0),
            failures_in_row: AtomicU32::new(0),
            gateway_failures_in_row: AtomicU32::new(0),
            failing: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            ramp_from: AtomicU64::new(0),
            latency: Latency::new(),
            interval: AtomicU64::new(0),
            ejected: Mutex::new(Ejected {
                recent: 0,
                reason: Reason::AtOnce,
                is_untold: false,
            }),
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

    /// Returns the ejection that is under way.
    pub fn ejection(&self, now: Instant) -> Option<Ejection> {
        let left = self.ejected_for(now)?;
        let ejected = self.ejected.lock();
        Some(Ejection::new(left, ejected.recent, ejected.reason))
    }

    /// Returns the time since it was first seen or its latest ejection ended.
    pub fn age(&self, now: Instant) -> Duration {
        let from = self.ramp_from.load(Ordering::Relaxed);
        Duration::from_millis(self.millis(now).saturating_sub(from))
    }

    /// Returns the recent latency, with what is forgotten after `decay`; nothing before the first answer.
    pub fn latency(&self, decay: Duration, now: Instant) -> Option<Duration> {
        let seconds = self.latency.get(decay, self.wrapped(now))?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Takes in how long a call took, for [`Policy::PeakEwma`](super::Policy::PeakEwma). A failure makes the endpoint look
    /// slower, where it took long, and never faster.
    pub fn observe(&self, latency: Duration, is_failure: bool, decay: Duration, now: Instant) {
        let is_slower = || {
            self.latency(decay, now)
                .is_some_and(|known| latency > known)
        };
        if !is_failure || is_slower() {
            self.latency.observe(latency, decay, self.wrapped(now));
        }
    }

    /// Returns the load to compare: calls per share of the traffic, made larger by recent failures.
    pub(super) fn cost(&self, share: f64, now: Instant) -> f64 {
        // Without calls and failures the cost is the same for every weight, so that the draw by weight decides.
        (f64::from(self.in_flight()) / share + 1.0) * self.penalty(now)
    }

    /// Returns the load times the recent latency. One that is not known yet is tried once, and then waited for: it counts
    /// as [`UNKNOWN_LATENCY`].
    pub(super) fn expected_wait(&self, share: f64, decay: Duration, now: Instant) -> f64 {
        let latency = match self.latency.get(decay, self.wrapped(now)) {
            Some(latency) => latency,
            None if self.in_flight() == 0 && self.failing.load(Ordering::Relaxed) == 0 => 0.0,
            None => UNKNOWN_LATENCY,
        };
        latency * self.cost(share, now)
    }

    /// What its weight is multiplied by.
    pub(super) fn ramp(&self, slow_start: &SlowStart, now: Instant) -> f64 {
        slow_start.factor(self.age(now))
    }

    fn penalty(&self, now: Instant) -> f64 {
        let failing = self.failure_ratio(now);
        (PENALTY * failing).mul_add(failing, 1.0)
    }

    /// Counts a call of the interval.
    pub(super) fn count(&self, is_failure: bool) {
        self.interval
            .fetch_add(1 << 32 | u64::from(is_failure), Ordering::Relaxed);
    }

    /// Returns the calls of the interval and those that failed, and begins a new one.
    pub(super) fn take_interval(&self) -> (u32, u32) {
        let both = self.interval.swap(0, Ordering::Relaxed);
        let half = |bits: u64| u32::try_from(bits).unwrap_or(u32::MAX);
        (half(both >> 32), half(both & u64::from(u32::MAX)))
    }

    /// Returns whether an ejection is over that nobody was told of yet; true once.
    pub(super) fn has_returned(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Ordering::Acquire);
        if until == 0 || self.millis(now) < until {
            return false;
        }
        std::mem::take(&mut self.ejected.lock().is_untold)
    }

    pub(super) fn succeeded(&self, now: Instant) {
        if self.failures_in_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_row.store(0, Ordering::Relaxed);
            self.gateway_failures_in_row.store(0, Ordering::Relaxed);
        }
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.average(now, |ratio| ratio - ratio.div_ceil(SAMPLES));
        }
    }

    /// Returns the failures in a row, this one included, and those of gateways.
    pub(super) fn failed(&self, is_gateway: bool, now: Instant) -> (u32, u32) {
        self.average(now, |ratio| ratio + (u32::MAX - ratio) / SAMPLES);
        let more = |count: &AtomicU32| count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let gateway = if is_gateway {
            more(&self.gateway_failures_in_row)
        } else {
            // Another kind of failure ends the row.
            self.gateway_failures_in_row.store(0, Ordering::Relaxed);
            0
        };
        (more(&self.failures_in_row), gateway)
    }

    /// Ejects the endpoint for `config.ejection` times the number of recent ejections, at most `config.max_ejection`.
    ///
    /// The number goes down by one for each `config.interval` that the endpoint was in service.
    pub(super) fn eject(&self, config: &OutlierConfig, reason: Reason, now: Instant) -> Ejection {
        let mut ejected = self.ejected.lock();
        let ended = self.ejected_until.load(Ordering::Acquire);
        let served = u128::from(self.millis(now).saturating_sub(ended));
        let forgiven = served / config.interval.as_millis().max(1);
        ejected.recent = ejected
            .recent
            .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
            .saturating_add(1);
        ejected.reason = reason;
        ejected.is_untold = true;
        let (base, max) = (config.ejection, config.max_ejection);
        let ejection = base.saturating_mul(ejected.recent).min(max.max(base));
        let until = self
            .millis(now)
            .saturating_add(u64::try_from(ejection.as_millis()).unwrap_or(u64::MAX));
        self.ejected_until.store(until, Ordering::Release);
        self.ramp_from.store(until, Ordering::Relaxed);
        self.failures_in_row.store(0, Ordering::Relaxed);
        self.gateway_failures_in_row.store(0, Ordering::Relaxed);
        Ejection::new(ejection, ejected.recent, reason)
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

    /// Milliseconds, from 0 again every 49 days.
    #[expect(clippy::cast_possible_truncation, reason = "wrapping is what is meant")]
    fn wrapped(&self, now: Instant) -> u32 {
        self.millis(now) as u32
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

/// Seconds; slower than nearly every answer, so that one that is not known yet is not called again before it answered.
const UNKNOWN_LATENCY: f64 = 1.0;
/// Weight of the failure ratio in the load: an endpoint that always fails looks 65 times as loaded.
const PENALTY: f64 = 64.0;
/// Calls that the failure ratio is averaged over.
const SAMPLES: u32 = 8;
/// 5 s in eighths of a second: long enough to matter at one call a second, and short of an ejection.
const HALF_LIFE: u64 = 40;
