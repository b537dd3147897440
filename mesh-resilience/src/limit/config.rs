//! How many calls a key may make.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::error::ConfigError;

/// How many windows one limiter can have.
pub const MAX_WINDOWS: usize = 4;

/// So many calls in so much time.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Calls admitted in any stretch of `period`; at most 6,000,000.
    pub max_requests: NonZeroU32,
    /// The length of the stretch; 1 ms to 10 years.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub period: Duration,
}

impl Window {
    /// Allows `max_requests` in any stretch of `period`.
    pub const fn new(max_requests: NonZeroU32, period: Duration) -> Self {
        Self {
            max_requests,
            period,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let limit = f64::from(self.max_requests.get());
        ConfigError::check_range("max_requests", limit, 1.0, MAX_LIMIT)?;
        let seconds = self.period.as_secs_f64();
        ConfigError::check_range("period (in seconds)", seconds, MIN_PERIOD, MAX_PERIOD)
    }
}

/// A steady rate, and how far calls may run ahead of it.
///
/// In any stretch of time `t` it admits at most `burst + rate * t / period` calls.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bucket {
    /// Calls that come back in each `period`; at most 1,000,000 a second, so that rounding stays below 0.1 %.
    pub rate: NonZeroU32,
    /// What `rate` is counted over. Default 1 s; 1 ms to 10 years.
    #[cfg_attr(
        feature = "serde",
        serde(default = "default_bucket_period", with = "crate::duration")
    )]
    pub period: Duration,
    /// Calls that may come at once; at most what comes back in 10 years.
    pub burst: NonZeroU32,
}

impl Bucket {
    /// Allows `rate` calls a second, and `burst` at once.
    pub const fn new(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            rate,
            period: DEFAULT_BUCKET_PERIOD,
            burst,
        }
    }

    /// Sets what the rate is counted over.
    #[must_use]
    pub const fn with_period(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let seconds = self.period.as_secs_f64();
        ConfigError::check_range("period (in seconds)", seconds, MIN_PERIOD, MAX_PERIOD)?;
        let rate = f64::from(self.rate.get());
        ConfigError::check_range("rate", rate, 1.0, seconds * MAX_RATE)?;
        let burst = f64::from(self.burst.get());
        ConfigError::check_range("burst", burst, 1.0, MAX_PERIOD / seconds * rate)
    }
}

/// The settings of one limiter. All of its windows, and its bucket, must allow a call.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct LimitConfig {
    /// The windows. Default 100 a minute and 10,000 an hour; at most 4, and none only where there is a bucket.
    pub windows: Vec<Window>,
    /// The token bucket. Default none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub bucket: Option<Bucket>,
    /// Keys remembered; at most 16,000,000. Default 100,000, which take at most 32 MiB with the default windows: some
    /// 10 bytes for each at once, the rest as keys come.
    ///
    /// More distinct active keys than this make the limiter forget some of them, and so admit more of those.
    pub max_keys: NonZeroUsize,
}

impl LimitConfig {
    /// Sets the windows.
    #[must_use]
    pub fn with_windows(mut self, windows: Vec<Window>) -> Self {
        self.windows = windows;
        self
    }

    /// Sets the token bucket.
    #[must_use]
    pub const fn with_bucket(mut self, bucket: Bucket) -> Self {
        self.bucket = Some(bucket);
        self
    }

    /// Sets how many keys are remembered.
    #[must_use]
    pub const fn with_max_keys(mut self, max_keys: NonZeroUsize) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// Returns the part of these limits that one of `nodes` may use by itself: each number divided, rounded down, and at
    /// least 1; that of a bucket's rate is one in 10 years at least. The part of limits that make sense makes sense too.
    #[must_use]
    pub fn share(&self, nodes: NonZeroU32) -> Self {
        let part = |whole: NonZeroU32| {
            NonZeroU32::new(whole.get() / nodes.get()).unwrap_or(NonZeroU32::MIN)
        };
        let window = |window: &Window| Window::new(part(window.max_requests), window.period);
        // The rate by a longer period, so that a slow one is not rounded up.
        let bucket = |bucket: &Bucket| Bucket {
            rate: bucket.rate,
            period: bucket
                .period
                .saturating_mul(nodes.get())
                .min(bucket.period.max(LONGEST_PERIOD)),
            burst: part(bucket.burst),
        };
        Self {
            windows: self.windows.iter().map(window).collect(),
            bucket: self.bucket.as_ref().map(bucket),
            max_keys: self.max_keys,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let has_none = self.windows.is_empty() && self.bucket.is_none();
        if has_none || self.windows.len() > MAX_WINDOWS {
            return Err(ConfigError::Windows {
                windows: self.windows.len(),
                max: MAX_WINDOWS,
            });
        }
        self.windows.iter().try_for_each(Window::check)?;
        self.bucket.as_ref().map_or(Ok(()), Bucket::check)?;
        let keys = u32::try_from(self.max_keys.get()).map_or(f64::INFINITY, f64::from);
        ConfigError::check_range("max_keys", keys, 1.0, f64::from(MAX_KEYS))
    }
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            windows: DEFAULT_WINDOWS.to_vec(),
            bucket: None,
            max_keys: DEFAULT_MAX_KEYS,
        }
    }
}

#[cfg(feature = "serde")]
const fn default_bucket_period() -> Duration {
    DEFAULT_BUCKET_PERIOD
}

const DEFAULT_WINDOWS: [Window; 2] = [
    Window::new(NonZeroU32::new(100).unwrap(), Duration::from_mins(1)),
    Window::new(NonZeroU32::new(10_000).unwrap(), Duration::from_hours(1)),
];
/// The bound that the threat model asks for at the least.
const DEFAULT_MAX_KEYS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
const DEFAULT_BUCKET_PERIOD: Duration = Duration::from_secs(1);
/// Keeps a group of calls below 2^16.
const MAX_LIMIT: f64 = 6_000_000.0;
/// Calls a second at which an interval is a thousand times the nanosecond to which it is rounded.
const MAX_RATE: f64 = 1_000_000.0;
const MIN_PERIOD: f64 = 0.001;
const MAX_PERIOD: f64 = 86_400.0 * 3_652.0;
/// The same.
const LONGEST_PERIOD: Duration = Duration::from_hours(24 * 3_652);
/// Places have 24 bits in the index.
const MAX_KEYS: u32 = 16_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_limits_that_make_sense_makes_sense_and_none_overflows() {
        let one = NonZeroU32::MIN;
        let part = |period, nodes| {
            let bucket = Bucket::new(one, one).with_period(period);
            let whole = LimitConfig::default().with_bucket(bucket);
            (whole.check().is_ok(), whole.share(nodes).check().is_ok())
        };
        let years = LONGEST_PERIOD;
        for nodes in [one, NonZeroU32::new(3).unwrap(), NonZeroU32::MAX] {
            assert_eq!(part(Duration::from_millis(1), nodes), (true, true));
            assert_eq!(part(Duration::from_hours(1), nodes), (true, true));
            assert_eq!(part(years, nodes), (true, true));
            assert_eq!(part(years * 2, nodes), (false, false));
            assert_eq!(part(Duration::MAX, nodes), (false, false));
        }
        assert!((years.as_secs_f64() - MAX_PERIOD).abs() < f64::EPSILON);
    }
}
