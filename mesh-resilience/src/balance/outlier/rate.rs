//! Who does worse than it may, of the calls of one interval. Everything here is pure.
//!
//! # Sources
//!
//! Envoy, "Outlier detection": success rate (mean less a multiple of the standard deviation) and failure percentage, with
//! their defaults.

use super::Reason;
use crate::error::ConfigError;

/// Ejects endpoints that succeed much less often than the others do.
///
/// Of the endpoints with at least `min_calls` calls in the interval, if they are at least `min_endpoints`, those are
/// ejected whose part of successful calls is below the mean less `deviations` times the standard deviation.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SuccessRate {
    /// How far below the mean is too far, in standard deviations. Default 1.9, range 0 to 100.
    pub deviations: f64,
    /// Fewer endpoints than this are not compared. Default 5.
    pub min_endpoints: u32,
    /// Endpoints with fewer calls in the interval are not judged. Default 100.
    pub min_calls: u32,
}

impl SuccessRate {
    /// Sets how far below the mean is too far.
    #[must_use]
    pub const fn with_deviations(mut self, deviations: f64) -> Self {
        self.deviations = deviations;
        self
    }

    /// Sets how many endpoints are compared at least.
    #[must_use]
    pub const fn with_min_endpoints(mut self, min_endpoints: u32) -> Self {
        self.min_endpoints = min_endpoints;
        self
    }

    /// Sets how many calls an endpoint is judged by at least.
    #[must_use]
    pub const fn with_min_calls(mut self, min_calls: u32) -> Self {
        self.min_calls = min_calls;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_range("success_rate.deviations", self.deviations, 0.0, 100.0)
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            deviations: 1.9,
            min_endpoints: 5,
            min_calls: 100,
        }
    }
}

/// Ejects endpoints that fail more often than a fixed part of their calls.
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRate {
    /// The part of failed calls that is too much. Default 0.85, range 0 to 1.
    pub ratio: f64,
    /// Where fewer endpoints than this have calls enough, none is judged. Default 5.
    pub min_endpoints: u32,
    /// Endpoints with fewer calls in the interval are not judged. Default 50.
    pub min_calls: u32,
}

impl FailureRate {
    /// Sets the part of failed calls that is too much.
    #[must_use]
    pub const fn with_ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets how many endpoints must have calls enough.
    #[must_use]
    pub const fn with_min_endpoints(mut self, min_endpoints: u32) -> Self {
        self.min_endpoints = min_endpoints;
        self
    }

    /// Sets how many calls an endpoint is judged by at least.
    #[must_use]
    pub const fn with_min_calls(mut self, min_calls: u32) -> Self {
        self.min_calls = min_calls;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_range("failure_rate.ratio", self.ratio, 0.0, 1.0)
    }
}

impl Default for FailureRate {
    fn default() -> Self {
        Self {
            ratio: 0.85,
            min_endpoints: 5,
            min_calls: 50,
        }
    }
}

/// The calls to one endpoint in an interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    index: usize,
    calls: u32,
    /// The part that failed.
    failed: f64,
}

impl Counted {
    pub(super) fn new(index: usize, calls: u32, failed: u32) -> Self {
        Self {
            index,
            calls,
            failed: f64::from(failed) / f64::from(calls.max(1)),
        }
    }
}

/// Who does worse than it may, the worst first, and why.
pub(super) fn outliers(
    counts: &[Counted],
    success: Option<&SuccessRate>,
    failure: Option<&FailureRate>,
) -> Vec<(usize, Reason)> {
    let mut found: Vec<(Counted, Reason)> = Vec::new();
    if let Some(config) = success {
        let judged = judged(counts, config.min_endpoints, config.min_calls);
        let all = super::count(judged.len());
        let mean = judged.iter().map(|one| one.failed).sum::<f64>() / all;
        let squares = judged.iter().map(|one| (one.failed - mean).powi(2));
        let deviation = (squares.sum::<f64>() / all).sqrt();
        let limit = config.deviations.mul_add(deviation, mean);
        let outliers = judged.into_iter().filter(|one| one.failed > limit);
        found.extend(outliers.map(|one| (one, Reason::SuccessRate)));
    }
    if let Some(config) = failure {
        let judged = judged(counts, config.min_endpoints, config.min_calls);
        let outliers = judged.into_iter().filter(|one| one.failed >= config.ratio);
        found.extend(outliers.map(|one| (one, Reason::FailureRate)));
    }
    found.sort_by(|(one, _), (other, _)| other.failed.total_cmp(&one.failed));
    found
        .into_iter()
        .map(|(one, reason)| (one.index, reason))
        .collect()
}

/// Those with calls enough; nobody where these are too few.
fn judged(counts: &[Counted], min_endpoints: u32, min_calls: u32) -> Vec<Counted> {
    let enough = |one: &&Counted| one.calls >= min_calls.max(1);
    let judged: Vec<Counted> = counts.iter().filter(enough).copied().collect();
    if judged.len() < min_endpoints.max(1) as usize {
        return Vec::new();
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(failed: &[u32]) -> Vec<Counted> {
        let one = |(index, failed): (usize, &u32)| Counted::new(index, 100, *failed);
        failed.iter().enumerate().map(one).collect()
    }

    #[test]
    fn who_is_far_below_the_mean_is_an_outlier() {
        let config = SuccessRate::default();
        let found = |failed: &[u32]| outliers(&counted(failed), Some(&config), None);
        // Mean 0.1, deviation 0.2: 0.48 is the limit.
        assert_eq!(found(&[50, 0, 0, 0, 0]), [(0, Reason::SuccessRate)]);
        assert_eq!(found(&[20, 10, 0, 10, 0]), []);
        assert_eq!(found(&[100, 100, 100, 100, 100]), [], "all fail alike");
        assert_eq!(found(&[100, 0, 0, 0]), [], "too few to compare");
        let idle: Vec<Counted> = (0..9).map(|index| Counted::new(index, 99, 99)).collect();
        assert_eq!(outliers(&idle, Some(&config), None), []);
    }

    #[test]
    fn who_fails_more_than_it_may_is_an_outlier_and_the_worst_comes_first() {
        let config = FailureRate::default();
        let found = |failed: &[u32]| outliers(&counted(failed), None, Some(&config));
        let reason = Reason::FailureRate;
        assert_eq!(found(&[85, 84, 100, 0, 0]), [(2, reason), (0, reason)]);
        assert_eq!(found(&[100, 100, 100, 100]), []);
    }
}
