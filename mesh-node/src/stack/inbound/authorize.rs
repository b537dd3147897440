//! The decision about one call: made once, and told to metrics, log, record and whoever asks later. The caller learns
//! nothing but its id.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderName;
use http::HeaderValue;
use mesh_auth::caller::Caller;
use mesh_auth::policy::Decision;
use mesh_auth::policy::Facts;
use mesh_auth::policy::Query;
use mesh_auth::policy::Verdict;
use mesh_auth::request::CanonicalRequest;
use mesh_resilience::limit::Limiter;
use mesh_resilience::random::SplitMix64;

use crate::decision::DecisionId;
use crate::decision::Recent;
use crate::decision::Shadowed;
use crate::decision::Told;
use crate::policy_store::PolicyStore;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::stack::now;
use crate::stack::outbound::unix_seconds;
use crate::telemetry::Telemetry;

/// Names the decision that refused a call, for whoever runs the service to explain.
pub(crate) const X_MESH_DECISION_ID: HeaderName = HeaderName::from_static("x-mesh-decision-id");

/// Decides about calls.
#[derive(Clone, Debug)]
pub(crate) struct Authorizer {
    pub(crate) service: Arc<str>,
    pub(crate) port: u16,
    pub(crate) policies: Arc<PolicyStore>,
    pub(crate) random: Arc<SplitMix64>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// How many decisions of one caller the log tells.
    pub(crate) logged: Arc<Limiter>,
    /// Whether every decision is recorded, so that its facts are wanted.
    pub(crate) is_recorded: bool,
    pub(crate) recent: Arc<Recent>,
    pub(crate) by_default: Arc<str>,
}

/// What was decided about one call.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) told: Arc<Told>,
    pub(crate) is_allowed: bool,
}

impl Authorizer {
    /// Decides about `request` of `caller`, who is `peer` in the log; or about a connection that is not HTTP.
    pub(crate) fn judge(
        &self,
        (caller, peer): (&Caller, &str),
        request: Option<&CanonicalRequest>,
        now: SystemTime,
    ) -> Judgement {
        let policies = self.policies.current();
        let mut query = Query::new(caller, &self.service, unix_seconds(now)).with_port(self.port);
        if let Some(request) = request {
            query = query.with_request(request);
        }
        let decision = policies.live.decide(&query);
        let shadow = policies.shadow.as_ref().map(|shadow| shadow.decide(&query));
        let (is_allowed, verdict) = (decision.is_allowed(), verdict_of(&decision));
        let rule = decision.would_deny.or(decision.rule);
        let shadow = shadow.map(|decision| Shadowed {
            verdict: verdict_of(&decision),
            rule: decision.would_deny.or(decision.rule),
        });
        let id = DecisionId::new(now, &*self.random);
        let is_notable = !is_allowed
            || shadow
                .as_ref()
                .is_some_and(|shadow| shadow.verdict != verdict);
        let facts = (is_notable || self.is_recorded)
            .then(|| Facts::of(id.as_str(), &query, &policies.needs).to_fields());
        let told = Arc::new(Told {
            id,
            verdict,
            rule,
            shadow,
            generation: policies.generation,
            fields: facts.unwrap_or_default(),
        });
        self.count(&told);
        if is_notable {
            self.tell(&told, caller, peer);
        }
        Judgement { told, is_allowed }
    }

    fn count(&self, told: &Told) {
        let metrics = &self.telemetry.policy;
        metrics.decided(told.verdict, self.named(told.rule.as_ref()));
        if let Some(shadow) = &told.shadow {
            let rule = self.named(shadow.rule.as_ref());
            metrics.shadowed(told.verdict, shadow.verdict, rule);
        }
    }

    /// The name of what decided: a rule, or the default.
    fn named<'a>(&'a self, rule: Option<&'a Arc<str>>) -> &'a Arc<str> {
        rule.unwrap_or(&self.by_default)
    }

    /// Remembers a denial, or a decision that the shadow policy would make otherwise, and tells the log.
    fn tell(&self, told: &Arc<Told>, caller: &Caller, peer: &str) {
        self.recent.remember(Arc::clone(told));
        // Whoever is denied a thousand times a second must not make us write as often (threat 59); the record has all.
        if !self.logged.check(peer, now()).allowed {
            return;
        }
        let user = caller.user.as_deref().map(|user| &*user.subject);
        let rule = self.named(told.rule.as_ref());
        if told.verdict == "deny" {
            tracing::info!(decision = %told.id, %rule, peer.id = peer, user, "call denied");
        }
        if let Some(shadow) = told
            .shadow
            .as_ref()
            .filter(|shadow| shadow.verdict != told.verdict)
        {
            let shadow_rule = self.named(shadow.rule.as_ref());
            tracing::info!(
                decision = %told.id, live = told.verdict, %rule, shadow = shadow.verdict, %shadow_rule,
                peer.id = peer, user, "the shadow policy would decide otherwise"
            );
        }
    }

    /// What a denied caller sees: that it was, and which decision to ask about.
    pub(crate) fn refusal(&self, judgement: &Judgement) -> Refusal {
        let id = judgement.told.id;
        let message = format!(
            "not allowed; decision {id}; whoever runs {} can explain it with: mesh-node explain {id}",
            self.service
        );
        let refusal = Refusal::new(Code::Denied, message);
        match HeaderValue::from_str(id.as_str()) {
            Ok(value) => refusal.with_header(X_MESH_DECISION_ID, value),
            Err(_) => refusal,
        }
    }
}

/// `would_deny`: it passes, and an audit rule or an audit default is against it.
pub(crate) fn verdict_of(decision: &Decision) -> &'static str {
    match (decision.verdict, &decision.would_deny) {
        (Verdict::Allow, None) => "allow",
        (Verdict::Allow, Some(_)) => "would_deny",
        (Verdict::Deny, _) => "deny",
    }
}
