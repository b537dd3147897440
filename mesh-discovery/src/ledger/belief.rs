//! The settings of what is believed.

use std::time::Duration;

use crate::error::Error;

/// What is believed of a registry's answers, and when. The defaults are right for most.
#[derive(Clone, Debug, PartialEq)]
pub struct Belief {
    grace: Duration,
    share: f64,
    damping: Option<Damping>,
    quiet: Duration,
}

impl Belief {
    /// How long a withdrawal that is hard to believe must stand before it is believed with nothing known from elsewhere,
    /// and the time over which withdrawals are counted. Default 60 s. Longer keeps calls going through a longer mistake
    /// of the registry, and tries endpoints that are gone for longer. 0 believes every withdrawal at once, also that
    /// of the last endpoint.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The share of the endpoints that may be withdrawn within [`Self::grace`] and still be believed at once; the last one
    /// never is. Default one half.
    ///
    /// # Errors
    ///
    /// [`Error::Belief`] unless it is from 0 to 1.
    pub fn with_share(self, share: f64) -> Result<Self, Error> {
        if (0.0..=1.0).contains(&share) {
            return Ok(Self { share, ..self });
        }
        Err(Error::Belief {
            field: "share",
            reason: "use a number from 0 to 1",
        })
    }

    /// When an endpoint that comes and goes is left out; never where it is none.
    ///
    /// # Errors
    ///
    /// [`Error::Belief`] when the half-life is 0 or the limits are not `0 < reuse < suppress`.
    pub fn with_damping(self, damping: Option<Damping>) -> Result<Self, Error> {
        let wrong = |field, reason| Err(Error::Belief { field, reason });
        if let Some(damping) = damping {
            if damping.half_life.is_zero() {
                return wrong("half-life", "use more than 0");
            }
            if !(damping.reuse > 0.0 && damping.reuse < damping.suppress) {
                return wrong(
                    "reuse limit",
                    "use more than 0 and less than the limit that suppresses",
                );
            }
            if !(2.0..=MAX_LIMIT).contains(&damping.suppress) {
                return wrong("suppress limit", "use 2 to 1000 changes");
            }
        }
        Ok(Self { damping, ..self })
    }

    /// The shortest time between two lists that are published; the first change comes at once. Default 100 ms. Longer
    /// saves work when much changes, and every change after the first is seen that much later.
    #[must_use]
    pub fn with_quiet(self, quiet: Duration) -> Self {
        Self { quiet, ..self }
    }

    /// See [`Self::with_grace`].
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// See [`Self::with_share`].
    pub fn share(&self) -> f64 {
        self.share
    }

    /// See [`Self::with_damping`].
    pub fn damping(&self) -> Option<Damping> {
        self.damping
    }

    /// See [`Self::with_quiet`].
    pub fn quiet(&self) -> Duration {
        self.quiet
    }
}

impl Default for Belief {
    fn default() -> Self {
        Self {
            grace: GRACE,
            share: SHARE,
            damping: Some(Damping::default()),
            quiet: QUIET,
        }
    }
}

/// When an endpoint that comes and goes is left out until it is calm.
///
/// Each time that it goes or comes back counts 1; the sum halves every half-life. From `suppress` on the endpoint is left
/// out, below `reuse` it is used again.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    /// After how long half is forgotten. Default 15 s.
    pub half_life: Duration,
    /// The sum that leaves it out, 2 to 1000. Default 6: it comes and goes in less than 7 s, again and again. Two
    /// restarts within a minute stay below.
    pub suppress: f64,
    /// The sum below which it is used again. Default 2; an endpoint is back at the latest three half-lives after its
    /// last change.
    pub reuse: f64,
}

impl Damping {
    /// With another half-life.
    #[must_use]
    pub fn with_half_life(self, half_life: Duration) -> Self {
        Self { half_life, ..self }
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(self, suppress: f64, reuse: f64) -> Self {
        Self {
            suppress,
            reuse,
            ..self
        }
    }
}

impl Default for Damping {
    fn default() -> Self {
        Self {
            half_life: HALF_LIFE,
            suppress: SUPPRESS,
            reuse: REUSE,
        }
    }
}

/// Longer than a registry needs to be told anew by all services after it lost its data, with renewals every 10 s to 20 s.
const GRACE: Duration = Duration::from_mins(1);
/// A mistake takes away most endpoints, a roll-out replaces them: then as many are there as are gone.
const SHARE: f64 = 0.5;
/// A fifth of the 500 ms within which a change is to be seen.
const QUIET: Duration = Duration::from_millis(100);
/// RFC 2439 section 4.2 leaves the figures to the operator; routers use 15 min, for routes are dearer than endpoints.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// Three restarts at once.
const SUPPRESS: f64 = 6.0;
/// A third of the limit, as the 750 of 2,000 that routers use.
const REUSE: f64 = 2.0;
const MAX_LIMIT: f64 = 1000.0;
