//! What somebody expects of a policy, held against it.

use thiserror::Error;

use super::{Explanation, Policy, Query, Verdict};
use crate::caller::Caller;
use crate::request::CanonicalRequest;

/// A call and what should be decided about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Expectation {
    /// What it is about, for whoever reads the result.
    pub name: String,
    /// Who calls.
    pub caller: Caller,
    /// The called service.
    pub service: String,
    /// The called port, 0 where it does not matter.
    pub port: u16,
    /// The request; none for a connection that is not HTTP.
    pub request: Option<CanonicalRequest>,
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// The verdict that is expected.
    pub verdict: Verdict,
    /// The rule that is expected to decide, if that matters; [`DEFAULT_RULE`](super::DEFAULT_RULE) for the default.
    pub rule: Option<String>,
}

impl Expectation {
    /// `verdict` is expected about a connection of `caller` to `service` at `at`, in seconds since the Unix epoch.
    pub fn new(name: &str, caller: Caller, (service, at): (&str, u64), verdict: Verdict) -> Self {
        Self {
            name: name.to_owned(),
            caller,
            service: service.to_owned(),
            port: 0,
            request: None,
            at,
            verdict,
            rule: None,
        }
    }

    /// Sets the port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the request.
    #[must_use]
    pub fn with_request(mut self, request: CanonicalRequest) -> Self {
        self.request = Some(request);
        self
    }

    /// Sets the rule that is to decide.
    #[must_use]
    pub fn with_rule(mut self, rule: &str) -> Self {
        self.rule = Some(rule.to_owned());
        self
    }

    /// Asks `policy`.
    ///
    /// # Errors
    /// What is decided instead.
    pub fn check(&self, policy: &Policy) -> Result<(), Box<Surprise>> {
        let query = Query::new(&self.caller, &self.service, self.at).with_port(self.port);
        let query = match &self.request {
            Some(request) => query.with_request(request),
            None => query,
        };
        let decision = policy.decide(&query);
        let found = decision.rule.as_deref().unwrap_or(super::DEFAULT_RULE);
        let is_rule = self.rule.as_ref().is_none_or(|rule| rule == found);
        if decision.verdict == self.verdict && is_rule {
            return Ok(());
        }
        Err(Box::new(Surprise {
            name: self.name.clone(),
            verdict: self.verdict,
            rule: self.rule.clone(),
            explanation: policy.explain(&query),
        }))
    }
}

/// An expectation that does not hold.
#[derive(Clone, Debug, Error)]
#[error(
    "{name}: expected {}{}, but {explanation}",
    verdict.as_str(),
    match rule {
        Some(rule) => format!(" by {rule}"),
        None => String::new(),
    }
)]
#[non_exhaustive]
pub struct Surprise {
    /// The expectation.
    pub name: String,
    /// What was expected.
    pub verdict: Verdict,
    /// The rule that was expected.
    pub rule: Option<String>,
    /// What is so, and why.
    pub explanation: Explanation,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyConfig, RuleConfig};
    use crate::spiffe::{SpiffeId, TrustDomain};

    #[test]
    fn a_surprise_says_what_is_so_and_why() {
        let own = TrustDomain::parse("example.org").unwrap();
        let rule = RuleConfig::new("r", &["web"], "orders");
        let policy = Policy::build(&PolicyConfig::default().with_rule(rule), &own).unwrap();
        let expect = |from: &str, verdict| {
            let caller = Caller::new(SpiffeId::for_service(&own, from).ok(), None);
            Expectation::new("reading", caller, ("orders", 0), verdict).with_port(80)
        };
        let said = |expectation: &Expectation| match expectation.check(&policy) {
            Ok(()) => "as expected".to_owned(),
            Err(surprise) => surprise.to_string(),
        };
        let expected = "as expected";
        assert_eq!(
            said(&expect("web", Verdict::Allow).with_rule("r")),
            expected
        );
        assert_eq!(
            said(&expect("report", Verdict::Deny).with_rule("default")),
            expected
        );
        let called = "A connection to orders:80, called by spiffe://example.org/";
        assert_eq!(
            said(&expect("web", Verdict::Deny)),
            format!("reading: expected deny, but {called}web, is allowed by rule r.")
        );
        assert_eq!(
            said(&expect("web", Verdict::Allow).with_rule("other")),
            format!("reading: expected allow by other, but {called}web, is allowed by rule r.")
        );
    }
}
