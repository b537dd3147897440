//! What the rate limit service answered.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Names;

/// The metrics of `rate_limit_service`. Labels name domains and rules of the configuration, so there are no more series than
/// those, but for the domains that callers bring limits of their own to, which are of the configuration too.
pub(crate) struct RateLimitMetrics {
    answers: Family<AnswerLabels, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AnswerLabels {
    domain: Arc<str>,
    rule: Arc<str>,
    result: &'static str,
}

impl RateLimitMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            answers: names.register(
                "mesh_rate_limit_service_answers",
                "Limits that the rate limit service applied, by rule: ok, over_limit, or shadow where that lets it pass",
            ),
        }
    }

    /// Counts a limit that was applied; one that came with the question where there is no rule.
    pub(crate) fn answered(&self, domain: &str, rule: Option<&str>, result: &'static str) {
        let labels = AnswerLabels {
            domain: domain.into(),
            rule: rule.unwrap_or_default().into(),
            result,
        };
        self.answers.get_or_create(&labels).inc();
    }
}
