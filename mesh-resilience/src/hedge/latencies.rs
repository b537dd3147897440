//! How long recent calls took, and the quantile of that: bounded, and it forgets.

use std::time::{Duration, Instant};

use super::HedgeConfig;
use crate::histogram::{self, Histogram};

/// Two histograms that take turns: what is asked for is of both together, so of between half the window and all of it.
///
/// ```text
///   ├── previous ──┼── current ──▶ now        each covers half a window; then the older one is emptied
/// ```
#[derive(Debug)]
pub(super) struct Latencies {
    half: Duration,
    current: Histogram,
    previous: Histogram,
    since: Option<Instant>,
}

impl Latencies {
    pub(super) fn new(config: &HedgeConfig) -> Self {
        Self {
            half: (config.window / 2).max(Duration::from_nanos(1)),
            current: Histogram::new(),
            previous: Histogram::new(),
            since: None,
        }
    }

    pub(super) fn record(&mut self, latency: Duration, now: Instant) {
        self.move_to(now);
        self.current.record(latency);
    }

    /// Returns how long a first attempt is waited for.
    pub(super) fn delay(&mut self, config: &HedgeConfig, now: Instant) -> Duration {
        if config.min_delay == config.max_delay {
            return config.max_delay;
        }
        self.move_to(now);
        let known = f64::from(self.current.len()) + f64::from(self.previous.len());
        // Fewer, and the quantile would be the slowest of them.
        if known * (1.0 - config.quantile) < 1.0 {
            return config.max_delay;
        }
        histogram::quantile(&[&self.current, &self.previous], config.quantile)
            .map_or(config.max_delay, |found| {
                found.clamp(config.min_delay, config.max_delay)
            })
    }

    fn move_to(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed < self.half {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if passed >= self.half * 2 {
            self.previous.clear();
        }
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests;
