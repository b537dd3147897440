//! How many calls may be under way: a state machine without a clock or a lock of its own.

use std::time::{Duration, Instant};

use super::{Priority, ShedConfig};
use crate::histogram::{self, Histogram};

/// The limit, what is under way, and what the calls of the window took.
#[derive(Debug)]
pub(super) struct Machine {
    config: ShedConfig,
    limit: f64,
    in_flight: u32,
    shed: u64,
    /// What a call takes unhindered, as far as is known.
    baseline: Option<Duration>,
    window: Window,
    phase: Phase,
    /// Whether the limit was reached in the last window.
    was_limited: bool,
    /// The limit and the latency from which on calls have been slow in every window.
    slow_since: Option<(f64, Duration)>,
    /// When the last search ended.
    probed: Option<Instant>,
}

/// The calls that begin in a stretch of time, until enough of them have ended: what is seen is the effect of the limit of
/// that time, for fast and slow calls alike.
#[derive(Debug)]
struct Window {
    since: Option<Instant>,
    /// No more calls count from here on.
    until: Option<Instant>,
    /// Calls that count, but for those that ended and told nothing.
    begun: u32,
    latencies: Histogram,
    was_limited: bool,
}

impl Window {
    fn new() -> Self {
        Self {
            since: None,
            until: None,
            begun: 0,
            latencies: Histogram::new(),
            was_limited: false,
        }
    }

    fn has(&self, started: Instant) -> bool {
        self.since.is_some_and(|since| started >= since)
            && self.until.is_none_or(|until| started < until)
    }

    /// Counts no more calls once there are enough.
    fn close(&mut self, interval: Duration, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if self.until.is_none()
            && self.begun >= MIN_SAMPLES
            && now.saturating_duration_since(since) >= interval
        {
            self.until = Some(now);
        }
    }

    /// Whether all calls that counted have ended, and told nothing.
    const fn is_empty(&self) -> bool {
        self.until.is_some() && self.begun == 0
    }

    /// The median of all that began, once three quarters have ended: those that have not are the slow ones.
    fn median(&self) -> Option<Duration> {
        let (begun, ended) = (f64::from(self.begun), f64::from(self.latencies.len()));
        if self.until.is_none() || ended < begun * ENDED {
            return None;
        }
        histogram::quantile(
            &[&self.latencies],
            (begun * MEDIAN / ended.max(1.0)).min(1.0),
        )
    }

    fn begin(&mut self, now: Instant) {
        self.since = Some(now);
        self.until = None;
        self.begun = 0;
        self.latencies.clear();
        self.was_limited = false;
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Follows the gradient.
    Follow,
    /// Halves the limit until calls get no faster, to learn what they take unhindered.
    Probe {
        /// A limit and what calls took at it.
        from: Option<(f64, Duration)>,
        /// What they took at twice the limit of now.
        last: Option<Duration>,
    },
}

impl Machine {
    pub(super) fn new(config: ShedConfig) -> Self {
        Self {
            limit: config.initial_limit.get().into(),
            config,
            in_flight: 0,
            shed: 0,
            baseline: None,
            window: Window::new(),
            was_limited: false,
            slow_since: None,
            phase: Phase::Follow,
            probed: None,
        }
    }

    pub(super) fn limit(&self) -> u32 {
        floor(self.limit)
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) const fn baseline(&self) -> Option<Duration> {
        self.baseline
    }

    pub(super) const fn shed(&self) -> u64 {
        self.shed
    }

    /// Lets a call begin, or not.
    pub(super) fn try_enter(&mut self, priority: Priority, now: Instant) -> bool {
        let limit = self.limit();
        let places = match priority {
            Priority::Normal => limit,
            Priority::Critical => limit.saturating_add((limit / CRITICAL_PART).max(1)),
        };
        self.window.close(self.config.interval, now);
        if self.in_flight >= limit {
            self.window.was_limited = true;
        }
        let is_free = self.in_flight < places;
        if is_free {
            self.in_flight += 1;
            if self.window.until.is_none() {
                self.window.begun = self.window.begun.saturating_add(1);
            }
        } else {
            self.shed += 1;
        }
        is_free
    }

    /// A call that began at `started` has ended and tells nothing.
    pub(super) fn left(&mut self, started: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.window.has(started) {
            self.window.begun = self.window.begun.saturating_sub(1);
        }
    }

    /// A call that began at `started` was answered.
    pub(super) fn answered(&mut self, started: Instant, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.window.has(started) {
            let latency = now.saturating_duration_since(started);
            self.window.latencies.record(latency);
        }
        self.turn(now);
    }

    /// A call that began at `started` was given up: it took at least this long, which says something only where that is too
    /// long already.
    pub(super) fn given_up(&mut self, started: Instant, now: Instant) {
        let waited = now.saturating_duration_since(started);
        let slow = self
            .baseline
            .map(|baseline| baseline.mul_f64(self.config.tolerance));
        if slow.is_some_and(|slow| waited > slow) {
            self.answered(started, now);
        } else {
            self.left(started);
            self.turn(now);
        }
    }

    /// Moves the limit and begins a new window, if this one has told enough.
    fn turn(&mut self, now: Instant) {
        self.window.close(self.config.interval, now);
        if self.window.is_empty() {
            self.window.begin(now);
            return;
        }
        let Some(sample) = self.window.median() else {
            return;
        };
        match self.phase {
            Phase::Follow => self.follow(sample, now),
            Phase::Probe { .. } => self.probe(sample, now),
        }
        self.window.begin(now);
    }

    fn follow(&mut self, sample: Duration, now: Instant) {
        let slow_since = self.slow_since.take();
        let was_limited_before = std::mem::replace(&mut self.was_limited, self.window.was_limited);
        let known = self.baseline;
        let nudged = known.map_or(sample, |baseline| {
            baseline.mul_f64(1.0 - SMOOTHING) + sample.mul_f64(SMOOTHING)
        });
        // A limit that nobody reached is neither too low nor too high, and calls take what they take unhindered.
        if !self.was_limited {
            self.baseline = Some(nudged);
            return;
        }
        let Some(baseline) = known.filter(|known| sample >= known.mul_f64(FASTER)) else {
            // What a call takes unhindered is not known, or less than was thought.
            if known.is_none() || self.may_probe(MIN_PAUSE, MIN_PAUSE_CALLS, now) {
                self.baseline = None;
                self.begin_probe(sample, was_limited_before);
            } else {
                self.baseline = Some(nudged);
                self.set_limit(self.followed(self.limit, nudged, sample));
            }
            return;
        };
        if sample > baseline.mul_f64(self.config.tolerance) {
            self.slow(slow_since, baseline, sample, now);
            if !was_limited_before {
                // The latency of a window in which the limit was reached at last is that of a queue that still grew.
                self.slow_since = None;
            }
        } else {
            self.set_limit(self.followed(self.limit, baseline, sample));
        }
    }

    /// Calls take too long at this limit; `before` says at which limit they took how long when that began.
    fn slow(
        &mut self,
        before: Option<(f64, Duration)>,
        baseline: Duration,
        sample: Duration,
        now: Instant,
    ) {
        let here = (self.limit, sample);
        let (limit, latency) = before.unwrap_or(here);
        let is_lower = self.limit <= limit * LOWER;
        let mut baseline = baseline;
        if is_lower && sample >= latency.mul_f64(FASTER) {
            // Fewer at a time were no faster: nothing waits in the service, so that is what a call takes now.
            baseline = (sample + latency) / 2;
            self.baseline = Some(baseline);
        } else if before.is_some() && self.may_probe(self.config.probe_interval, PAUSE_CALLS, now) {
            self.begin_probe(sample, true);
            return;
        } else {
            self.slow_since = Some(if is_lower { here } else { (limit, latency) });
        }
        self.set_limit(self.followed(self.limit, baseline, sample));
    }

    /// Whether the last search is long enough ago: `pause`, or as long as `calls` take one after the other, since a search
    /// takes the time of a few and costs a part of the calls meanwhile.
    fn may_probe(&self, pause: Duration, calls: u32, now: Instant) -> bool {
        let pause = pause.max(self.baseline.unwrap_or_default() * calls);
        self.probed
            .is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }

    /// Begins to search; a window in which the limit was reached at last is no measure, since its queue still grew.
    fn begin_probe(&mut self, sample: Duration, is_steady: bool) {
        let here = (self.limit, sample);
        self.phase = Phase::Probe {
            from: is_steady.then_some(here),
            last: is_steady.then_some(sample),
        };
        self.set_limit(self.limit / 2.0);
    }

    fn probe(&mut self, sample: Duration, now: Instant) {
        let Phase::Probe { from, last } = self.phase else {
            return;
        };
        let (limit, latency) = from.unwrap_or((self.limit, sample));
        let is_lowest = self.limit <= self.config.min_limit.get().into();
        let is_faster = last.is_none_or(|last| sample < last.mul_f64(FASTER));
        if is_faster && !is_lowest {
            self.phase = Phase::Probe {
                from: Some((limit, latency)),
                last: Some(sample),
            };
            self.set_limit(self.limit / 2.0);
            return;
        }
        // Where twice the limit made no difference, both are what a call takes.
        let baseline = last.map_or(sample, |last| (sample + last.min(sample * 2)) / 2);
        let baseline = if is_faster { sample } else { baseline };
        self.baseline = Some(baseline);
        self.phase = Phase::Follow;
        self.probed = Some(now);
        self.set_limit(self.followed(limit, baseline, latency));
    }

    /// Envoy's gradient controller: what the latency allows by Little's law, and some headroom to find out whether more is
    /// possible.
    fn followed(&self, limit: f64, baseline: Duration, sample: Duration) -> f64 {
        let ratio = baseline.as_secs_f64() / sample.as_secs_f64().max(f64::MIN_POSITIVE);
        let allowed = limit * (self.config.tolerance * ratio).min(MAX_GRADIENT);
        allowed + allowed.sqrt()
    }

    fn set_limit(&mut self, limit: f64) {
        let (min, max) = (self.config.min_limit.get(), self.config.max_limit.get());
        self.limit = limit.clamp(min.into(), max.into());
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit is between one and the largest u32"
)]
fn floor(limit: f64) -> u32 {
    limit as u32
}

const MEDIAN: f64 = 0.5;
const MIN_SAMPLES: u32 = 40;
const ENDED: f64 = 0.75;
const SMOOTHING: f64 = 0.1;
const FASTER: f64 = 0.85;
const MAX_GRADIENT: f64 = 2.0;
const PAUSE_CALLS: u32 = 200;
const MIN_PAUSE_CALLS: u32 = 20;
/// Between searches where calls are faster than was thought possible.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// A difference in limits that must show in the latency, if calls wait in the service.
const LOWER: f64 = 0.6;
/// Calls that matter more have a quarter of the limit to themselves.
const CRITICAL_PART: u32 = 4;
