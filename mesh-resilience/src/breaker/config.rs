//! When a breaker opens, for how long, and what closes it.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::ConfigError;

/// The settings of one breaker.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Failures in a row that open the breaker. Default 5.
    pub threshold: NonZeroU32,
    /// Opens the breaker also when too few calls succeed. Default none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub success_rate: Option<SuccessRate>,
    /// Opens the breaker also when too many calls are slow. Default none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub slow_calls: Option<SlowCalls>,
    /// How long it stays open before probes pass, before jitter. Default 60 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub open_for: Duration,
    /// How far the open time strays from `open_for`, up and down, so that the nodes of a fleet do not probe in step.
    /// Default 0.015 (60 s becomes 59.1 s to 60.9 s), range 0 to 0.1.
    pub jitter_ratio: f64,
    /// Probes under way at the same time while half-open. Default 3.
    pub half_open_requests: NonZeroU32,
    /// Successful probes that close the breaker. Default 3.
    pub successes_to_close: NonZeroU32,
    /// How long probes may go without a result while all places are taken, before the breaker opens again. Default 60 s,
    /// must be positive; give it more than the timeout of a call.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub probe_timeout: Duration,
}

impl BreakerConfig {
    /// Sets the failures in a row that open the breaker.
    #[must_use]
    pub const fn with_threshold(mut self, threshold: NonZeroU32) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets the success rate below which the breaker opens.
    #[must_use]
    pub const fn with_success_rate(mut self, success_rate: SuccessRate) -> Self {
        self.success_rate = Some(success_rate);
        self
    }

    /// Sets the share of slow calls at which the breaker opens.
    #[must_use]
    pub const fn with_slow_calls(mut self, slow_calls: SlowCalls) -> Self {
        self.slow_calls = Some(slow_calls);
        self
    }

    /// Sets how long the breaker stays open.
    #[must_use]
    pub const fn with_open_for(mut self, open_for: Duration) -> Self {
        self.open_for = open_for;
        self
    }

    /// Sets how far the open time strays.
    #[must_use]
    pub const fn with_jitter_ratio(mut self, jitter_ratio: f64) -> Self {
        self.jitter_ratio = jitter_ratio;
        self
    }

    /// Sets how many probes are under way at the same time.
    #[must_use]
    pub const fn with_half_open_requests(mut self, half_open_requests: NonZeroU32) -> Self {
        self.half_open_requests = half_open_requests;
        self
    }

    /// Sets how many successful probes close the breaker.
    #[must_use]
    pub const fn with_successes_to_close(mut self, successes_to_close: NonZeroU32) -> Self {
        self.successes_to_close = successes_to_close;
        self
    }

    /// Sets how long probes may go without a result.
    #[must_use]
    pub const fn with_probe_timeout(mut self, probe_timeout: Duration) -> Self {
        self.probe_timeout = probe_timeout;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_duration("open_for", self.open_for)?;
        ConfigError::check_duration("probe_timeout", self.probe_timeout)?;
        ConfigError::check_range("jitter_ratio", self.jitter_ratio, 0.0, MAX_JITTER_RATIO)?;
        if let Some(rate) = &self.success_rate {
            ConfigError::check_duration("success_rate.window", rate.window)?;
            ConfigError::check_range("success_rate.min_ratio", rate.min_ratio, 0.0, 1.0)?;
        }
        if let Some(slow) = &self.slow_calls {
            ConfigError::check_duration("slow_calls.longer_than", slow.longer_than)?;
            ConfigError::check_duration("slow_calls.window", slow.window)?;
            ConfigError::check_range("slow_calls.max_ratio", slow.max_ratio, MIN_SLOW_RATIO, 1.0)?;
        }
        Ok(())
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            threshold: DEFAULT_THRESHOLD,
            success_rate: None,
            slow_calls: None,
            open_for: DEFAULT_OPEN_FOR,
            jitter_ratio: DEFAULT_JITTER_RATIO,
            half_open_requests: DEFAULT_HALF_OPEN_REQUESTS,
            successes_to_close: DEFAULT_SUCCESSES_TO_CLOSE,
            probe_timeout: DEFAULT_PROBE_TIMEOUT,
        }
    }
}

/// Opens a breaker when too few of the recent calls succeed.
///
/// Judged at each failure, over a window that moves in tenths of its length.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SuccessRate {
    /// Part of the calls that must succeed. Default 0.5, range 0 to 1.
    pub min_ratio: f64,
    /// How far back calls are counted. Default 30 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub window: Duration,
    /// Calls within the window below which no judgement is made. Default 20.
    pub min_volume: NonZeroU32,
}

impl SuccessRate {
    /// Sets the part of the calls that must succeed.
    #[must_use]
    pub const fn with_min_ratio(mut self, min_ratio: f64) -> Self {
        self.min_ratio = min_ratio;
        self
    }

    /// Sets how far back calls are counted.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the number of calls below which no judgement is made.
    #[must_use]
    pub const fn with_min_volume(mut self, min_volume: NonZeroU32) -> Self {
        self.min_volume = min_volume;
        self
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            min_ratio: DEFAULT_MIN_RATIO,
            window: DEFAULT_WINDOW,
            min_volume: DEFAULT_MIN_VOLUME,
        }
    }
}

/// Opens a breaker when too many of the recent calls are slow.
///
/// Judged at each slow call, over a window that moves in tenths of its length.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SlowCalls {
    /// How long a call takes that is not slow yet. Default 10 s, must be positive; below the timeout of a call, which is
    /// a failure.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub longer_than: Duration,
    /// Part of the calls that opens the breaker when it is slow. Default 0.5, range 0.001 to 1.
    pub max_ratio: f64,
    /// How far back calls are counted. Default 30 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub window: Duration,
    /// Calls within the window below which no judgement is made. Default 20.
    pub min_volume: NonZeroU32,
}

impl SlowCalls {
    /// Sets how long a call takes that is not slow yet.
    #[must_use]
    pub const fn with_longer_than(mut self, longer_than: Duration) -> Self {
        self.longer_than = longer_than;
        self
    }

    /// Sets the part of the calls that opens the breaker when it is slow.
    #[must_use]
    pub const fn with_max_ratio(mut self, max_ratio: f64) -> Self {
        self.max_ratio = max_ratio;
        self
    }

    /// Sets how far back calls are counted.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the number of calls below which no judgement is made.
    #[must_use]
    pub const fn with_min_volume(mut self, min_volume: NonZeroU32) -> Self {
        self.min_volume = min_volume;
        self
    }
}

impl Default for SlowCalls {
    fn default() -> Self {
        Self {
            longer_than: DEFAULT_LONGER_THAN,
            max_ratio: DEFAULT_MAX_RATIO,
            window: DEFAULT_WINDOW,
            min_volume: DEFAULT_MIN_VOLUME,
        }
    }
}

const DEFAULT_THRESHOLD: NonZeroU32 = NonZeroU32::new(5).unwrap();
const DEFAULT_OPEN_FOR: Duration = Duration::from_mins(1);
/// Just under one second of the default minute.
const DEFAULT_JITTER_RATIO: f64 = 0.015;
const MAX_JITTER_RATIO: f64 = 0.1;
const DEFAULT_HALF_OPEN_REQUESTS: NonZeroU32 = NonZeroU32::new(3).unwrap();
const DEFAULT_SUCCESSES_TO_CLOSE: NonZeroU32 = NonZeroU32::new(3).unwrap();
/// Twice the default timeout of a call.
const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_mins(1);
const DEFAULT_MIN_RATIO: f64 = 0.5;
/// A third of the default timeout of a call.
const DEFAULT_LONGER_THAN: Duration = Duration::from_secs(10);
const DEFAULT_MAX_RATIO: f64 = 0.5;
/// No share at all would open the breaker at every slow call.
const MIN_SLOW_RATIO: f64 = 0.001;
/// Envoy's outlier interval and three times its smallest useful sample.
const DEFAULT_WINDOW: Duration = Duration::from_secs(30);
const DEFAULT_MIN_VOLUME: NonZeroU32 = NonZeroU32::new(20).unwrap();
