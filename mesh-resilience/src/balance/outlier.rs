//! Outlier detection: takes endpoints that fail out of service for a while.
//!
//! ```text
//!                  failures in a row, or much worse than the others,
//!                  and neither too many nor the last one
//!   in service ─────────────────────────────────────────────────────▶ ejected
//!       ▲                                                                │
//!       └──────────────── base × recent ejections have passed ───────────┘
//! ```
//!
//! *Recent ejections* are those not forgiven yet; one is forgiven for each interval in service. A *gateway failure* is
//! one where nothing says that the application itself failed: no connection, no answer in time, 502, 503 or 504.

mod rate;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::rate::{FailureRate, SuccessRate};

use super::share::count;
use super::{Endpoint, EndpointState};
use crate::classify::Outcome;
use crate::error::ConfigError;

/// When an endpoint is ejected, and for how long.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierConfig {
    /// Failures of any kind in a row that eject an endpoint; nothing for never. Default 5.
    pub consecutive_failures: Option<NonZeroU32>,
    /// Gateway failures in a row that do; nothing for never. Default 5.
    pub consecutive_gateway_failures: Option<NonZeroU32>,
    /// Ejects who succeeds much less often than the others. Default: off.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub success_rate: Option<SuccessRate>,
    /// Ejects who fails more often than a fixed part of its calls. Default: off.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub failure_rate: Option<FailureRate>,
    /// Length of the first ejection; the second in short order takes twice that, and so on. Default 30 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub ejection: Duration,
    /// Bound on the length of an ejection. Default 300 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub max_ejection: Duration,
    /// Time in service after which one earlier ejection is forgiven, and time between two looks at the rates. Default
    /// 30 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub interval: Duration,
    /// Part of the usable endpoints that may be ejected at a time, rounded down. Default 0.5, range 0 to 1; the last
    /// endpoint in service is never ejected.
    pub max_ejected_ratio: f64,
}

impl OutlierConfig {
    /// Sets the failures in a row that eject an endpoint.
    #[must_use]
    pub fn with_consecutive_failures(
        mut self,
        consecutive_failures: impl Into<Option<NonZeroU32>>,
    ) -> Self {
        self.consecutive_failures = consecutive_failures.into();
        self
    }

    /// Sets the gateway failures in a row that eject an endpoint.
    #[must_use]
    pub fn with_consecutive_gateway_failures(
        mut self,
        consecutive_gateway_failures: impl Into<Option<NonZeroU32>>,
    ) -> Self {
        self.consecutive_gateway_failures = consecutive_gateway_failures.into();
        self
    }

    /// Ejects who succeeds much less often than the others.
    #[must_use]
    pub const fn with_success_rate(mut self, success_rate: SuccessRate) -> Self {
        self.success_rate = Some(success_rate);
        self
    }

    /// Ejects who fails more often than a fixed part of its calls.
    #[must_use]
    pub const fn with_failure_rate(mut self, failure_rate: FailureRate) -> Self {
        self.failure_rate = Some(failure_rate);
        self
    }

    /// Sets the length of the first ejection.
    #[must_use]
    pub const fn with_ejection(mut self, ejection: Duration) -> Self {
        self.ejection = ejection;
        self
    }

    /// Sets the bound on the length of an ejection.
    #[must_use]
    pub const fn with_max_ejection(mut self, max_ejection: Duration) -> Self {
        self.max_ejection = max_ejection;
        self
    }

    /// Sets the time in service after which one earlier ejection is forgiven.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the part of the endpoints that may be ejected at a time.
    #[must_use]
    pub const fn with_max_ejected_ratio(mut self, max_ejected_ratio: f64) -> Self {
        self.max_ejected_ratio = max_ejected_ratio;
        self
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that is out of it.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_duration("ejection", self.ejection)?;
        ConfigError::check_duration("interval", self.interval)?;
        ConfigError::check_range("max_ejected_ratio", self.max_ejected_ratio, 0.0, 1.0)?;
        self.success_rate
            .as_ref()
            .map_or(Ok(()), SuccessRate::check)?;
        self.failure_rate
            .as_ref()
            .map_or(Ok(()), FailureRate::check)
    }
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(DEFAULT_CONSECUTIVE_FAILURES),
            consecutive_gateway_failures: Some(DEFAULT_CONSECUTIVE_FAILURES),
            success_rate: None,
            failure_rate: None,
            ejection: DEFAULT_EJECTION,
            max_ejection: DEFAULT_MAX_EJECTION,
            interval: DEFAULT_INTERVAL,
            max_ejected_ratio: DEFAULT_MAX_EJECTED_RATIO,
        }
    }
}

/// What a call said of an endpoint.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// It answered as it should.
    Success,
    /// It failed.
    Failure,
    /// It failed, and nothing says that the application did.
    GatewayFailure,
    /// Nothing.
    Nothing,
}

impl From<Outcome> for Seen {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Failure => Self::Failure,
            Outcome::CallerError | Outcome::Unknown => Self::Nothing,
        }
    }
}

/// Why an endpoint was ejected.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too many gateway failures in a row.
    ConsecutiveGatewayFailures,
    /// It succeeded much less often than the others.
    SuccessRate,
    /// It failed more often than is allowed.
    FailureRate,
    /// [`Outliers::eject_at_once`] was called.
    AtOnce,
}

impl Reason {
    /// Returns a stable name, such as `consecutive_failures`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::ConsecutiveGatewayFailures => "consecutive_gateway_failures",
            Self::SuccessRate => "success_rate",
            Self::FailureRate => "failure_rate",
            Self::AtOnce => "at_once",
        }
    }
}

/// An ejection.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ejection {
    /// How long it takes, or, of one under way, how long it still does.
    pub length: Duration,
    /// How many there were in short order, this one included.
    pub recent: u32,
    /// Why.
    pub reason: Reason,
}

impl Ejection {
    pub(super) const fn new(length: Duration, recent: u32, reason: Reason) -> Self {
        Self {
            length,
            recent,
            reason,
        }
    }
}

/// Hears of ejections; every method does nothing by default.
pub trait Observe: Send + Sync {
    /// An endpoint was ejected.
    fn ejected(&self, _ejection: &Ejection) {}

    /// An endpoint should have been ejected, but too many are.
    fn spared(&self, _reason: Reason) {}

    /// An endpoint whose ejection is over was called again.
    fn returned(&self) {}
}

/// What is ejected now.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutlierSnapshot {
    /// Places in the list, with the ejection.
    pub ejected: Vec<(usize, Ejection)>,
    /// How many endpoints are usable, ejected or not.
    pub usable: usize,
}

/// Watches the endpoints of one service.
pub struct Outliers {
    config: OutlierConfig,
    /// Held while deciding about an ejection, so that two at a time can't exceed the share together. When rates are
    /// looked at next, where they are.
    deciding: Mutex<Option<Instant>>,
    observer: Option<Arc<dyn Observe>>,
}

impl Outliers {
    /// Creates a detector.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`OutlierConfig`] for their ranges.
    pub fn new(config: OutlierConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            deciding: Mutex::new(None),
            observer: None,
        })
    }

    /// Tells `observer` of ejections.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observe>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Takes in what a call to `endpoints[index]` said of it, and returns who is ejected for that: nearly always nobody,
    /// which allocates nothing.
    pub fn record<E: Endpoint>(
        &self,
        endpoints: &[E],
        index: usize,
        seen: impl Into<Seen>,
        now: Instant,
    ) -> Vec<(usize, Ejection)> {
        let Some(endpoint) = endpoints.get(index) else {
            return Vec::new();
        };
        let (state, seen) = (endpoint.state(), seen.into());
        if let Some(observer) = &self.observer
            && seen != Seen::Nothing
            && state.has_returned(now)
        {
            observer.returned();
        }
        let reason = match seen {
            Seen::Nothing => return Vec::new(),
            Seen::Success => {
                state.succeeded(now);
                None
            }
            Seen::Failure | Seen::GatewayFailure => {
                let row = state.failed(seen == Seen::GatewayFailure, now);
                self.row(row)
            }
        };
        let mut ejected = self.look_at_rates(endpoints, state, seen, now);
        if let Some(reason) = reason {
            let _deciding = self.deciding.lock();
            let ejection = self.eject(endpoints, index, reason, now);
            ejected.extend(ejection.map(|ejection| (index, ejection)));
        }
        ejected
    }

    /// Ejects an endpoint at once, however many are ejected: for what no further call can put right, such as a peer that
    /// proved to be somebody else. Does nothing where it is ejected already.
    pub fn eject_at_once(&self, endpoint: &EndpointState, now: Instant) -> Option<Ejection> {
        let _deciding = self.deciding.lock();
        if endpoint.is_ejected(now) {
            return None;
        }
        Some(self.eject_one(endpoint, Reason::AtOnce, now))
    }

    /// Returns what is ejected now, for people to look at.
    pub fn snapshot<E: Endpoint>(&self, endpoints: &[E], now: Instant) -> OutlierSnapshot {
        let ejected = endpoints
            .iter()
            .enumerate()
            .filter_map(|(index, endpoint)| {
                let ejection = endpoint.state().ejection(now)?;
                Some((index, ejection))
            });
        OutlierSnapshot {
            ejected: ejected.collect(),
            usable: endpoints.iter().filter(|one| one.is_usable()).count(),
        }
    }

    fn row(&self, (failures, gateway): (u32, u32)) -> Option<Reason> {
        let is_reached =
            |limit: Option<NonZeroU32>, row| limit.is_some_and(|limit| row >= limit.get());
        if is_reached(self.config.consecutive_gateway_failures, gateway) {
            Some(Reason::ConsecutiveGatewayFailures)
        } else if is_reached(self.config.consecutive_failures, failures) {
            Some(Reason::ConsecutiveFailures)
        } else {
            None
        }
    }

    /// Counts a call, and once an interval ejects who does worse than it may.
    fn look_at_rates<E: Endpoint>(
        &self,
        endpoints: &[E],
        state: &EndpointState,
        seen: Seen,
        now: Instant,
    ) -> Vec<(usize, Ejection)> {
        let config = &self.config;
        if config.success_rate.is_none() && config.failure_rate.is_none() {
            return Vec::new();
        }
        state.count(seen != Seen::Success);
        let Some(mut deciding) = self.deciding.try_lock() else {
            // Whoever holds it looks, or the next call does.
            return Vec::new();
        };
        match *deciding {
            Some(due) if now >= due => *deciding = Some(now + config.interval),
            Some(_) => return Vec::new(),
            None => {
                *deciding = Some(now + config.interval);
                return Vec::new();
            }
        }
        let counts: Vec<rate::Counted> = endpoints
            .iter()
            .enumerate()
            .map(|(index, endpoint)| (index, endpoint.state().take_interval()))
            .filter(|(index, _)| endpoints.get(*index).is_some_and(Endpoint::is_usable))
            .map(|(index, (calls, failed))| rate::Counted::new(index, calls, failed))
            .collect();
        rate::outliers(
            &counts,
            config.success_rate.as_ref(),
            config.failure_rate.as_ref(),
        )
        .into_iter()
        .filter_map(|(index, reason)| {
            let ejection = self.eject(endpoints, index, reason, now)?;
            Some((index, ejection))
        })
        .collect()
    }

    /// Ejects an endpoint unless that leaves too few. Whoever calls it holds `deciding`.
    fn eject<E: Endpoint>(
        &self,
        endpoints: &[E],
        index: usize,
        reason: Reason,
        now: Instant,
    ) -> Option<Ejection> {
        let state = endpoints.get(index)?.state();
        if state.is_ejected(now) {
            return None;
        }
        let usable = || endpoints.iter().filter(|endpoint| endpoint.is_usable());
        let ejected = usable().filter(|endpoint| endpoint.state().is_ejected(now));
        let (ejected, usable) = (ejected.count(), usable().count());
        let is_last = ejected + 1 >= usable;
        if is_last || count(ejected + 1) > count(usable) * self.config.max_ejected_ratio {
            if let Some(observer) = &self.observer {
                observer.spared(reason);
            }
            return None;
        }
        Some(self.eject_one(state, reason, now))
    }

    fn eject_one(&self, state: &EndpointState, reason: Reason, now: Instant) -> Ejection {
        let ejection = state.eject(&self.config, reason, now);
        if let Some(observer) = &self.observer {
            observer.ejected(&ejection);
        }
        ejection
    }
}

impl std::fmt::Debug for Outliers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outliers")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

const DEFAULT_CONSECUTIVE_FAILURES: NonZeroU32 = NonZeroU32::new(5).unwrap();
const DEFAULT_EJECTION: Duration = Duration::from_secs(30);
/// Envoy's `max_ejection_time`.
const DEFAULT_MAX_EJECTION: Duration = Duration::from_mins(5);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_MAX_EJECTED_RATIO: f64 = 0.5;
