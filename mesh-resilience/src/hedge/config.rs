//! When a second attempt starts.

use std::time::Duration;

use crate::budget::BudgetConfig;
use crate::error::ConfigError;

/// The settings of one hedge.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct HedgeConfig {
    /// The second attempt starts once the first takes longer than this part of the recent calls. Default 0.95
    /// (Dean and Barroso's), range 0.5 to 0.999.
    pub quantile: f64,
    /// How far back calls are looked at, to within half of it. Default 1 min, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub window: Duration,
    /// The second attempt never starts earlier, but where the first has failed. Default 1 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub min_delay: Duration,
    /// It never waits longer; so long it waits, too, while too few calls are known to tell the quantile. Default 1 s, must be
    /// positive and not below `min_delay`. Equal to it: a fixed delay.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub max_delay: Duration,
}

impl HedgeConfig {
    /// A second attempt always after `delay`, however long calls take.
    pub fn fixed(delay: Duration) -> Self {
        Self::default().with_min_delay(delay).with_max_delay(delay)
    }

    /// Sets which part of the recent calls must have been faster.
    #[must_use]
    pub const fn with_quantile(mut self, quantile: f64) -> Self {
        self.quantile = quantile;
        self
    }

    /// Sets how far back calls are looked at.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the shortest wait.
    #[must_use]
    pub const fn with_min_delay(mut self, min_delay: Duration) -> Self {
        self.min_delay = min_delay;
        self
    }

    /// Sets the longest wait.
    #[must_use]
    pub const fn with_max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// The budget that goes with it: at most 5 % of the calls are hedged, or one in ten seconds where that is more.
    pub fn budget() -> BudgetConfig {
        BudgetConfig::default()
            .with_ratio(DEFAULT_BUDGET_RATIO)
            .with_reserve(DEFAULT_BUDGET_RESERVE)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_range("quantile", self.quantile, MIN_QUANTILE, MAX_QUANTILE)?;
        ConfigError::check_duration("window", self.window)?;
        ConfigError::check_duration("max_delay", self.max_delay)?;
        ConfigError::check_range(
            "min_delay (in seconds)",
            self.min_delay.as_secs_f64(),
            0.0,
            self.max_delay.as_secs_f64(),
        )
    }
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            quantile: DEFAULT_QUANTILE,
            window: DEFAULT_WINDOW,
            min_delay: DEFAULT_MIN_DELAY,
            max_delay: DEFAULT_MAX_DELAY,
        }
    }
}

/// "Defer sending a secondary request until the first has been outstanding for more than the 95th-percentile expected
/// latency", which "limits the additional load to approximately 5 %": Dean and Barroso, section "Hedged requests".
const DEFAULT_QUANTILE: f64 = 0.95;
const MIN_QUANTILE: f64 = 0.5;
const MAX_QUANTILE: f64 = 0.999;
const DEFAULT_WINDOW: Duration = Duration::from_mins(1);
const DEFAULT_MIN_DELAY: Duration = Duration::from_millis(1);
const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(1);
const DEFAULT_BUDGET_RATIO: f64 = 0.05;
const DEFAULT_BUDGET_RESERVE: u32 = 1;
