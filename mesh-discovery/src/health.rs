//! Active health checks: when to probe which endpoint, and what follows from the answers.
//!
//! [`Check`] and [`CheckTable`] are state machines that take the time as an argument; [`HealthDriver`] runs
//! them with a clock and a probe, and tells [`Vitals`] what it finds. With the feature `probe` there are probes over TCP
//! and HTTP, with `probe-grpc` one that speaks gRPC's health protocol; over mutual TLS they take the caller's stream.
//!
//! # Sources
//!
//! Rise and fall as in `HAProxy`'s `check` (configuration manual, section 5.2); a list whose endpoints have
//! all failed is used whole, as with Envoy's panic threshold.

mod check;
mod driver;
#[cfg(feature = "probe")]
mod probe;
mod table;
mod vitals;

use std::num::NonZeroU32;
use std::time::Duration;

pub use check::Check;
pub use check::Status;
pub use driver::Health;
pub use driver::HealthDriver;
pub use driver::ProbeLimit;
#[cfg(feature = "probe-grpc")]
pub use probe::GrpcProbe;
#[cfg(feature = "probe")]
pub use probe::HttpProbe;
#[cfg(feature = "probe")]
pub use probe::connect;
pub use table::CheckTable;
pub use table::EndpointHealth;
pub use vitals::Vitals;

use crate::error::Error;

/// When an endpoint is probed and how many answers change its status.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// From one probe of an endpoint to its next, give or take a tenth by chance. Default 10 s, 100 ms to 1 h. Shorter finds a dead endpoint
    /// sooner and costs a connection an endpoint each time.
    pub interval: Duration,
    /// How long a probe may take before it counts as failed. Default 3 s, at most the interval. Below 1 s a
    /// single lost packet fails the probe (RFC 6298 section 2: the first retransmission comes after 1 s).
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy endpoint healthy. Default 2.
    pub rise: NonZeroU32,
    /// Failures in a row that make an endpoint unhealthy. Default 3.
    pub fall: NonZeroU32,
}

impl HealthConfig {
    /// With another interval; a timeout that is longer than it becomes as long as it.
    #[must_use]
    pub fn with_interval(self, interval: Duration) -> Self {
        Self {
            interval,
            timeout: self.timeout.min(interval),
            ..self
        }
    }

    /// With another timeout.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With other thresholds.
    #[must_use]
    pub fn with_thresholds(self, rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { rise, fall, ..self }
    }

    fn check(&self) -> Result<(), Error> {
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval) {
            return Err(Error::HealthConfig {
                field: "interval",
                reason: "use 100 ms to 1 h",
            });
        }
        if self.timeout.is_zero() || self.timeout > self.interval {
            return Err(Error::HealthConfig {
                field: "timeout",
                reason: "use more than 0 and at most the interval",
            });
        }
        Ok(())
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: INTERVAL,
            timeout: TIMEOUT,
            rise: RISE,
            fall: FALL,
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(10);
/// Lets one lost packet pass: the first two retransmissions come after 1 s and 3 s.
const TIMEOUT: Duration = Duration::from_secs(3);
/// `HAProxy`'s default.
const RISE: NonZeroU32 = NonZeroU32::new(2).unwrap();
/// `HAProxy`'s default.
const FALL: NonZeroU32 = NonZeroU32::new(3).unwrap();
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests;
