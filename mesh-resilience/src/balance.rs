//! Load balancing: which endpoint of a service gets the next attempt.
//!
//! ```text
//!   list ─▶ priority ─────────▶ zone ─────────────▶ policy ─────────▶ endpoint
//!           by health, first    the own one, as     of those neither
//!           as far as it goes   far as it goes      tried nor ejected
//! ```
//!
//! A caller keeps one [`EndpointState`] for each endpoint across changes of the endpoint list, builds a [`Picker`] for each
//! list and each [`Subset`] of it, asks it for a place in the list, holds [`EndpointState::begin`]'s guard during the call,
//! and reports how it went to [`Outliers`] and, for latency, to [`Picker::observe`].
//!
//! ```
//! use std::sync::Arc;
//! use mesh_resilience::balance::{Ask, BalanceConfig, EndpointState, Outliers, OutlierConfig, Picker, Policy};
//! use mesh_resilience::classify::Outcome;
//! use mesh_resilience::random::SplitMix64;
//!
//! # fn main() -> Result<(), mesh_resilience::BoxError> {
//! # let now = tokio::time::Instant::now().into_std();
//! let endpoints: Vec<_> = (0..3).map(|_| Arc::new(EndpointState::new(now))).collect();
//! let config = BalanceConfig::default().with_policy(Policy::PeakEwma);
//! config.check()?;
//! let picker = Picker::new(&config, &endpoints, now);
//! let (outliers, random) = (Outliers::new(OutlierConfig::default())?, SplitMix64::from_entropy());
//!
//! let index = picker.pick(&endpoints, &Ask::new(now, &random)).ok_or("no endpoint")?;
//! let call = endpoints[index].begin();
//! // … and once it was answered:
//! let now = now + std::time::Duration::from_millis(7);
//! picker.observe(&endpoints[index], std::time::Duration::from_millis(7), false, now);
//! outliers.record(&endpoints, index, Outcome::Success, now);
//! drop(call);
//! # Ok(())
//! # }
//! ```
//!
//! # Failures count as load
//!
//! An endpoint that fails fast has few calls in flight, answers sooner than any other, and would attract more. So recent
//! failures count as load: with a failure ratio `f` (an exponential average over some eight calls, halved every 5 s),
//! `(calls + 1) * (1 + 64 f²)` is compared; peak EWMA multiplies that by the latency, which failures never make shorter.
//! One failure doubles the load, four make it twelvefold, and the fifth in a row ejects the endpoint.
//!
//! # Terms
//!
//! *Usable*: discovery and checks let it be called. *Ejected*: out of service for a while, since calls failed. *Healthy*:
//! usable and not ejected. *Tried*: an earlier attempt of the same call went there.
//!
//! # What it does not do
//!
//! No bounded loads for the policies by hash: a hot key makes a hot endpoint. No slow start for them either. The weighted
//! policies take weights as they are said; nothing is learned about how much an endpoint can take.
//!
//! # Sources
//!
//! - Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
//! - Twitter Finagle, `PeakEwma.scala` (latency that rises at once and decays; load times latency).
//! - Vose, "A Linear Algorithm For Generating Random Numbers With a Given Distribution", 1991 (alias tables).
//! - Balinski, Young, "Fair Representation", 1982 (Webster's method, which spreads a weighted round).
//! - Karger et al., "Consistent Hashing and Random Trees", STOC 1997; libketama (points of a ring).
//! - Eisenbud et al., "Maglev", NSDI 2016, section 3.4.
//! - Envoy, "Priority levels", "Panic threshold", "Zone aware routing", "Slow start mode", "Outlier detection".

mod config;
mod endpoint;
mod group;
mod hash;
mod latency;
mod maglev;
mod outlier;
mod picker;
mod ring;
mod share;
mod subset;
mod weight;

pub use self::config::{BalanceConfig, Policy, SlowStart, ZoneAware};
pub use self::endpoint::{Endpoint, EndpointState, InFlight};
pub use self::hash::hash;
pub use self::outlier::{
    Ejection, FailureRate, Observe, OutlierConfig, OutlierSnapshot, Outliers, Reason, Seen,
    SuccessRate,
};
pub use self::picker::{Ask, LevelSnapshot, Picker};
pub use self::subset::{Label, Labels, Subset};

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Picker>();
    assert_send_sync::<EndpointState>();
    assert_send_sync::<Outliers>();
};

#[cfg(test)]
mod tests;
