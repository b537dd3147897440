//! A decision as it was recorded.

use super::{Decision, Facts, FactsError, Verdict};

/// A decision as it was recorded: what it was about, and what was decided.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recorded {
    /// What it was about.
    pub facts: Facts,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether an audit rule, or the audit default, would have denied what was allowed.
    pub would_deny: bool,
    /// The rule that decided or would have denied; none where the default decided.
    pub rule: Option<Box<str>>,
}

impl Recorded {
    /// A decision that was just made.
    pub fn new(facts: Facts, decision: &Decision) -> Self {
        let would_deny = decision.would_deny.as_deref();
        Self {
            facts,
            verdict: decision.verdict,
            would_deny: would_deny.is_some(),
            rule: would_deny.or(decision.rule.as_deref()).map(Into::into),
        }
    }

    /// Reads a record: the fields of [`Facts::from_fields`], `verdict` (`allow`, `deny` or `would_deny`) and `rule`.
    ///
    /// # Errors
    /// As for [`Facts::from_fields`].
    pub fn from_fields<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, FactsError> {
        let field = "verdict";
        let (verdict, would_deny) = match get(field) {
            Some("allow") => (Verdict::Allow, false),
            Some("would_deny") => (Verdict::Allow, true),
            Some("deny") => (Verdict::Deny, false),
            Some(_) => return Err(FactsError::Malformed { field }),
            None => return Err(FactsError::Missing { field }),
        };
        Ok(Self {
            verdict,
            would_deny,
            rule: get("rule").map(Into::into),
            facts: Facts::from_fields(get)?,
        })
    }

    /// The word for the verdict, as the record has it.
    pub fn verdict_text(&self) -> &'static str {
        match (self.verdict, self.would_deny) {
            (Verdict::Allow, false) => "allow",
            (Verdict::Allow, true) => "would_deny",
            (Verdict::Deny, _) => "deny",
        }
    }
}
