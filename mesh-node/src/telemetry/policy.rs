//! What is counted about policy: decisions, the shadow's, reloads, rules that are about to end, and plaintext.

use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Names;

/// The metrics of policy. Labels name rules of the policies in force, so there are no more series than rules.
pub(crate) struct PolicyMetrics {
    decisions: Family<DecisionLabels, Counter>,
    shadow_decisions: Family<ShadowLabels, Counter>,
    pub(crate) reload_failures: Counter,
    loaded: Gauge,
    generation: Gauge,
    pub(crate) expiring: Gauge,
    pub(crate) intentions: Gauge,
    pub(crate) intention_failures: Counter,
    /// 1 where plaintext is taken.
    pub(crate) permissive: Gauge,
    /// Requests that came in plaintext.
    pub(crate) plaintext: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DecisionLabels {
    verdict: &'static str,
    rule: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ShadowLabels {
    live: &'static str,
    shadow: &'static str,
    rule: Arc<str>,
}

impl PolicyMetrics {
    pub(super) fn new(names: &mut Names<'_>) -> Self {
        Self {
            decisions: names.register(
                "mesh_auth_policy_decisions",
                "Decisions of the policy, by the rule that decided",
            ),
            shadow_decisions: names.register(
                "mesh_auth_shadow_decisions",
                "Decisions of the shadow policy, beside those of the live one, by the shadow's rule",
            ),
            reload_failures: names.register(
                "mesh_policy_reload_failures",
                "Policies that were refused while the last good one stayed",
            ),
            loaded: names.register(
                "mesh_policy_loaded_timestamp_seconds",
                "When the policy in force was loaded, in seconds since 1970",
            ),
            generation: names.register(
                "mesh_policy_generation",
                "How many policies were loaded since the start",
            ),
            expiring: names.register(
                "mesh_policy_rules_expiring",
                "Rules that end within 14 days",
            ),
            intentions: names.register(
                "mesh_policy_intentions",
                "Intentions of Consul that are in force here",
            ),
            intention_failures: names.register(
                "mesh_policy_intention_failures",
                "Failures to read Consul's intentions while the last good ones stayed",
            ),
            permissive: names.register(
                "mesh_permissive",
                "1 where plaintext is taken (security.mode: permissive)",
            ),
            plaintext: names.register(
                "mesh_plaintext_requests",
                "Requests that came in plaintext, from nobody knows whom",
            ),
        }
    }

    /// Counts a decision of the live policy.
    pub(crate) fn decided(&self, verdict: &'static str, rule: &Arc<str>) {
        let rule = Arc::clone(rule);
        self.decisions
            .get_or_create(&DecisionLabels { verdict, rule })
            .inc();
    }

    /// Counts a decision of the shadow policy, whose rule is `rule`.
    pub(crate) fn shadowed(&self, live: &'static str, shadow: &'static str, rule: &Arc<str>) {
        let rule = Arc::clone(rule);
        let labels = ShadowLabels { live, shadow, rule };
        self.shadow_decisions.get_or_create(&labels).inc();
    }

    /// Shows which policy is in force.
    pub(crate) fn loaded(&self, generation: u64, at: SystemTime) {
        let seconds = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.loaded.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// Drops the series of rules of the live policy that are no more.
    pub(crate) fn forget(&self, rule: &Arc<str>) {
        for verdict in VERDICTS {
            let rule = Arc::clone(rule);
            self.decisions.remove(&DecisionLabels { verdict, rule });
        }
    }

    /// Drops the series of rules of the shadow policy that are no more.
    pub(crate) fn forget_shadow(&self, rule: &Arc<str>) {
        for (live, shadow) in VERDICTS
            .into_iter()
            .flat_map(|live| VERDICTS.map(|shadow| (live, shadow)))
        {
            let rule = Arc::clone(rule);
            let labels = ShadowLabels { live, shadow, rule };
            self.shadow_decisions.remove(&labels);
        }
    }
}

/// What a policy can say about a call. `would_deny`: it passes, and an audit rule or an audit default is against it.
pub(crate) const VERDICTS: [&str; 3] = ["allow", "would_deny", "deny"];
