//! The last denials and disagreements of the shadow policy, with all that their explanation needs.

use std::collections::VecDeque;
use std::sync::Arc;

use mesh_auth::policy::Facts;
use mesh_auth::policy::Policy;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

use super::DecisionId;
use crate::explanation::as_json;
use crate::policy_store::Policies;

/// Remembers the last decisions that somebody may ask about, up to [`MAX_ENTRIES`] of them and [`MAX_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Arc<Told>>,
    bytes: usize,
}

/// One decision, as it is recorded.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: DecisionId,
    pub(crate) verdict: &'static str,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) shadow: Option<Shadowed>,
    /// The generation of the policies that decided.
    pub(crate) generation: u64,
    /// What was decided about: see `mesh_auth::policy::Facts`.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// What the shadow policy would have decided.
#[derive(Debug)]
pub(crate) struct Shadowed {
    pub(crate) verdict: &'static str,
    pub(crate) rule: Option<Arc<str>>,
}

impl Recent {
    /// Remembers a decision, and forgets the oldest where there are too many.
    pub(crate) fn remember(&self, told: Arc<Told>) {
        let ring = &mut *self.0.lock();
        ring.bytes = ring.bytes.saturating_add(told.bytes());
        ring.entries.push_back(told);
        while ring.entries.len() > MAX_ENTRIES || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.entries.pop_front() else {
                break;
            };
            ring.bytes = ring.bytes.saturating_sub(oldest.bytes());
        }
    }

    /// The ids of what is remembered, the newest first.
    pub(crate) fn page(&self) -> Value {
        let ring = self.0.lock();
        let rows = ring.entries.iter().rev();
        rows.map(|told| {
            let mut row =
                json!({ "decision": told.id.as_str(), "verdict": told.verdict, "rule": told.rule.as_deref() });
            if let (Some(shadow), Value::Object(row)) = (&told.shadow, &mut row) {
                row.insert("shadowVerdict".to_owned(), shadow.verdict.into());
            }
            row
        })
        .collect()
    }

    /// Everything about one decision, explained with the policies that are in force.
    pub(crate) fn explain(&self, id: &str, policies: &Policies) -> Option<Value> {
        let told = {
            let ring = self.0.lock();
            let found = ring.entries.iter().find(|told| told.id.as_str() == id)?;
            Arc::clone(found)
        };
        let facts = Facts::from_fields(|name: &str| told.field(name)).ok();
        let explain = |policy: &Policy| match facts.as_ref().map(|facts| facts.explain(policy)) {
            Some(Ok(explanation)) => as_json(&explanation),
            Some(Err(missing)) => Value::from(format!(
                "can't be explained: {} was not recorded",
                missing.join(", ")
            )),
            None => Value::from("can't be explained: the record of it is not whole"),
        };
        let fields: serde_json::Map<_, _> = told
            .fields
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Value::from(text.as_str())))
            .collect();
        let mut page = json!({
            "decision": id,
            "verdict": told.verdict,
            "rule": told.rule.as_deref(),
            "facts": fields,
            "policy": if told.generation == policies.generation { "the one that decided" } else { "a later one" },
            "explanation": explain(&policies.live),
        });
        if let (Some(shadow), Value::Object(page)) = (&told.shadow, &mut page) {
            let of_now = policies.shadow.as_ref().map(explain);
            let said = json!({ "verdict": shadow.verdict, "rule": shadow.rule.as_deref(), "explanation": of_now });
            page.insert("shadow".to_owned(), said);
        }
        Some(page)
    }
}

impl Told {
    /// What was decided about under this name, if it was kept.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(field, _)| *field == name);
        field.map(|(_, text)| text.as_str())
    }

    fn bytes(&self) -> usize {
        self.fields.iter().map(|(_, text)| text.len() + 64).sum()
    }
}

/// Enough to find what somebody has just complained about; the audit log has all.
const MAX_ENTRIES: usize = 1024;
/// Whoever is denied chooses how long the path is.
const MAX_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mesh_auth::policy::PolicyConfig;
    use mesh_auth::spiffe::TrustDomain;
    use mesh_resilience::random::SplitMix64;

    use super::*;

    fn told(random: &SplitMix64, path: &str) -> Arc<Told> {
        let id = DecisionId::new(SystemTime::UNIX_EPOCH, random);
        let field = |name, text: &str| (name, text.to_owned());
        Arc::new(Told {
            id,
            verdict: "deny",
            rule: None,
            shadow: None,
            generation: 1,
            fields: vec![
                field("decision", id.as_str()),
                field("at", "7"),
                field("peer", "spiffe://example.org/user-service"),
                field("service", "order-service"),
                field("port", "1"),
                field("method", "GET"),
                field("path", path),
                field("host", "order-service"),
            ],
        })
    }

    fn policies() -> Policies {
        let own = TrustDomain::parse("example.org").unwrap();
        Policies {
            live: Policy::build(&PolicyConfig::default(), &own).unwrap(),
            shadow: None,
            needs: mesh_auth::policy::Needs::default(),
            generation: 1,
        }
    }

    #[test]
    fn forgets_the_oldest_and_is_bounded_in_number_and_size() {
        // threat 59
        let (recent, random) = (Recent::default(), SplitMix64::new(1));
        let first = told(&random, "/first");
        recent.remember(Arc::clone(&first));
        for _ in 0..MAX_ENTRIES {
            recent.remember(told(&random, "/x"));
        }
        assert_eq!(recent.page().as_array().unwrap().len(), MAX_ENTRIES);
        assert_eq!(recent.explain(first.id.as_str(), &policies()), None);
        let long = "/".to_owned() + &"x".repeat(1 << 20);
        for _ in 0..20 {
            recent.remember(told(&random, &long));
        }
        assert!(recent.0.lock().bytes <= MAX_BYTES);
        assert!(recent.page().as_array().unwrap().len() < 8);
    }

    #[test]
    fn a_decision_is_explained_by_the_policy_in_force() {
        let (recent, random) = (Recent::default(), SplitMix64::new(1));
        let told = told(&random, "/x");
        recent.remember(Arc::clone(&told));
        let page = recent.explain(told.id.as_str(), &policies()).unwrap();
        assert_eq!(page["policy"], "the one that decided");
        let explanation = page["explanation"]["because"].as_str().unwrap();
        assert!(
            explanation.contains("the policy has no rules"),
            "{explanation}"
        );
        let change = page["explanation"]["change"]["summary"].as_str().unwrap();
        assert!(change.starts_with("add the rule allow-user-service-get-order-service"));
        let later = Policies {
            generation: 2,
            ..policies()
        };
        let page = recent.explain(told.id.as_str(), &later).unwrap();
        assert_eq!(page["policy"], "a later one");
    }
}
