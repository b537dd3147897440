//! How endpoints are chosen.

use std::time::Duration;

use crate::error::ConfigError;

/// Which of the endpoints that may be called is.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Policy {
    /// The less loaded of two drawn at random by weight; load is relative to weight. The default.
    #[default]
    LeastRequest,
    /// The one of two drawn at random by weight that is expected to answer sooner: recent latency times calls in flight.
    PeakEwma,
    /// One after the other, each as often as its weight says, evenly spread.
    RoundRobin,
    /// At random by weight.
    Random,
    /// The same endpoint for the same hash, on a ring of points; see [`Ask::with_hash`](super::Ask::with_hash).
    RingHash,
    /// The same endpoint for the same hash, by a table: more even and faster than a ring, and moves some more keys when
    /// endpoints come and go.
    Maglev,
}

impl Policy {
    /// Returns its name, such as `least_request`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "least_request",
            Self::PeakEwma => "peak_ewma",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::RingHash => "ring_hash",
            Self::Maglev => "maglev",
        }
    }

    /// Returns whether calls with the same hash go to the same endpoint.
    pub const fn is_by_hash(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// How endpoints are chosen, and what is taken into account beside the policy.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct BalanceConfig {
    /// Which endpoint is called. Default [`Policy::LeastRequest`].
    pub policy: Policy,
    /// Prefers the endpoints of one zone. Default: none is preferred.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub zone_aware: Option<ZoneAware>,
    /// Gives new endpoints, and those that were ejected, their share little by little. Default: all at once.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub slow_start: Option<SlowStart>,
    /// Where all priorities together have too few healthy endpoints, and of one priority a smaller part than this is
    /// healthy, its calls go to all of its endpoints, healthy or not. Default 0 (only where none at all is usable),
    /// range 0 to 1; Envoy has 0.5.
    pub panic_threshold: f64,
    /// How fast [`Policy::PeakEwma`] forgets a latency: after this long, 37 % of it counts. Default 10 s (Finagle), must
    /// be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub latency_decay: Duration,
    /// The points of one endpoint on the ring of [`Policy::RingHash`]: with `k` points, shares have a relative standard
    /// deviation of `1 / sqrt(k)`. Default 160 (libketama), range 1 to 65,536. There is no least size of a ring: the
    /// points of each would follow from how many there are, and keys would move that need not.
    pub ring_points: u32,
    /// The points of all together, at most; half as many each where they would be more, and so on, but at least one each.
    /// Default 262,144, range 1 to 4,194,304; 12 bytes each.
    pub max_ring_size: u32,
    /// The places in the table of [`Policy::Maglev`]. A prime; default 65,537 (the paper, and Envoy), range 2 to 5,000,011;
    /// 4 bytes each. A hundred times the number of endpoints keeps shares within 1 %.
    pub maglev_table_size: u32,
}

impl BalanceConfig {
    /// Sets which endpoint is called.
    #[must_use]
    pub const fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Prefers the endpoints of one zone.
    #[must_use]
    pub fn with_zone_aware(mut self, zone_aware: ZoneAware) -> Self {
        self.zone_aware = Some(zone_aware);
        self
    }

    /// Gives endpoints their share little by little.
    #[must_use]
    pub const fn with_slow_start(mut self, slow_start: SlowStart) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// Sets the part of healthy endpoints below which health is ignored.
    #[must_use]
    pub const fn with_panic_threshold(mut self, panic_threshold: f64) -> Self {
        self.panic_threshold = panic_threshold;
        self
    }

    /// Sets how fast latencies are forgotten.
    #[must_use]
    pub const fn with_latency_decay(mut self, latency_decay: Duration) -> Self {
        self.latency_decay = latency_decay;
        self
    }

    /// Sets the points of one endpoint on the ring, and of all together at most.
    #[must_use]
    pub const fn with_ring_size(mut self, points: u32, max: u32) -> Self {
        self.ring_points = points;
        self.max_ring_size = max;
        self
    }

    /// Sets the size of the maglev table, a prime.
    #[must_use]
    pub const fn with_maglev_table_size(mut self, maglev_table_size: u32) -> Self {
        self.maglev_table_size = maglev_table_size;
        self
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first that is out of it.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_range("panic_threshold", self.panic_threshold, 0.0, 1.0)?;
        ConfigError::check_duration("latency_decay", self.latency_decay)?;
        let (points, max) = (f64::from(self.ring_points), f64::from(self.max_ring_size));
        ConfigError::check_range("ring_points", points, 1.0, f64::from(MOST_POINTS))?;
        ConfigError::check_range("max_ring_size", max, 1.0, f64::from(LARGEST_RING))?;
        let table = self.maglev_table_size;
        let (least, most) = (f64::from(SMALLEST_TABLE), f64::from(LARGEST_TABLE));
        ConfigError::check_range("maglev_table_size", f64::from(table), least, most)?;
        if !is_prime(table) {
            return Err(ConfigError::NotPrime {
                field: "maglev_table_size",
                value: table,
            });
        }
        if let Some(zone) = &self.zone_aware {
            ConfigError::check_range("zone_aware.factor", zone.factor, 0.0, 1_000.0)?;
        }
        if let Some(slow) = &self.slow_start {
            ConfigError::check_duration("slow_start.window", slow.window)?;
            ConfigError::check_range("slow_start.aggression", slow.aggression, 0.01, 100.0)?;
            ConfigError::check_range("slow_start.min_share", slow.min_share, 0.0, 1.0)?;
        }
        Ok(())
    }

    /// The points of one endpoint and of all together, in their ranges also where nobody has checked them.
    pub(super) fn ring_size(&self) -> (u32, u32) {
        (
            self.ring_points.clamp(1, MOST_POINTS),
            self.max_ring_size.clamp(1, LARGEST_RING),
        )
    }

    /// The places in the table, likewise; not always a prime.
    pub(super) fn table_size(&self) -> u32 {
        self.maglev_table_size.clamp(SMALLEST_TABLE, LARGEST_TABLE)
    }
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            zone_aware: None,
            slow_start: None,
            panic_threshold: 0.0,
            latency_decay: DEFAULT_DECAY,
            ring_points: DEFAULT_POINTS,
            max_ring_size: DEFAULT_MAX_RING,
            maglev_table_size: DEFAULT_TABLE,
        }
    }
}

/// Prefers the endpoints of one zone, as far as they can take it.
///
/// With `l` the weight of the healthy endpoints in this zone, `t` that of all healthy ones, and `z` the number of zones
/// that have endpoints (this one counted in any case), this zone gets `min(1, factor * z * l / t)` of the calls, and the
/// others what is left. Callers are taken to be spread over the zones evenly, so that `z * l / t` is what this zone can
/// take of its own calls before its endpoints are busier than the average one; the factor says how much busier they may
/// get. This is Envoy's zone aware routing with `1/z` for the share of callers in this zone, which a node does not know.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneAware {
    /// The zone that is preferred.
    pub zone: Box<str>,
    /// How much busier than the average an endpoint of this zone may get before others help. Default 1.4, as between
    /// priorities; range 0 to 1,000. A large number keeps all calls in the zone until it has no healthy endpoint.
    #[cfg_attr(feature = "serde", serde(default = "default_factor"))]
    pub factor: f64,
}

impl ZoneAware {
    /// Prefers `zone`, with the default factor.
    pub fn new(zone: impl Into<Box<str>>) -> Self {
        Self {
            zone: zone.into(),
            factor: DEFAULT_FACTOR,
        }
    }

    /// Sets how much busier than the average this zone may get.
    #[must_use]
    pub const fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }
}

/// Gives an endpoint its share little by little after it was first seen, and after an ejection.
///
/// At age `a` its weight is multiplied by `max(min_share, (a / window)^(1 / aggression))`, with `a` at least 1 s (Envoy,
/// "Slow start mode"). The policies by hash know no slow start: they would move keys twice.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    /// How long it takes. Default 30 s, must be positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration"))]
    pub window: Duration,
    /// The form of the ramp: 1 is a straight line, more is faster at first. Default 1, range 0.01 to 100.
    pub aggression: f64,
    /// The part of its weight that an endpoint has at least. Default 0.1, range 0 to 1.
    pub min_share: f64,
}

impl SlowStart {
    /// Sets how long it takes.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the form of the ramp.
    #[must_use]
    pub const fn with_aggression(mut self, aggression: f64) -> Self {
        self.aggression = aggression;
        self
    }

    /// Sets the part of its weight that an endpoint has at least.
    #[must_use]
    pub const fn with_min_share(mut self, min_share: f64) -> Self {
        self.min_share = min_share;
        self
    }

    /// Returns what the weight of an endpoint of that age is multiplied by, in `0.0..=1.0`.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let passed = age.max(FIRST_STEP).as_secs_f64() / self.window.as_secs_f64();
        let ramp = passed.min(1.0).powf(self.aggression.recip());
        ramp.max(self.min_share)
    }
}

impl Default for SlowStart {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            aggression: 1.0,
            min_share: 0.1,
        }
    }
}

const fn is_prime(number: u32) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    number >= 2
}

#[cfg(feature = "serde")]
const fn default_factor() -> f64 {
    DEFAULT_FACTOR
}

const DEFAULT_FACTOR: f64 = 1.4;
const DEFAULT_DECAY: Duration = Duration::from_secs(10);
/// 40 hashes of four points each.
const DEFAULT_POINTS: u32 = 160;
const DEFAULT_MAX_RING: u32 = 262_144;
const DEFAULT_TABLE: u32 = 65_537;
const MOST_POINTS: u32 = 65_536;
const LARGEST_RING: u32 = 4_194_304;
const SMALLEST_TABLE: u32 = 2;
const LARGEST_TABLE: u32 = 5_000_011;
/// Envoy's: a younger endpoint counts as one of this age.
const FIRST_STEP: Duration = Duration::from_secs(1);
