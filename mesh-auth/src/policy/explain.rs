//! Decisions in sentences.

use std::fmt;
use std::sync::Arc;

use super::rule::Rule;
use super::{Action, Call, Decision, Policy, Verdict};

/// A decision and the reasons for it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The decision, equal to that of [`Policy::decide`].
    pub decision: Decision,
    /// What decided, as a sentence.
    pub because: String,
    /// For a request that no rule allows: the allow rule for the called service that comes nearest.
    pub nearest: Option<Nearest>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.because)?;
        match &self.nearest {
            Some(nearest) => write!(f, " {}", nearest.because),
            None => Ok(()),
        }
    }
}

/// The rule that would come nearest to allowing a request.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Nearest {
    /// Its name.
    pub rule: Arc<str>,
    /// The first condition that the request does not meet.
    pub failed: Condition,
    /// The same as a sentence.
    pub because: String,
}

/// A condition of a rule.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Condition {
    /// The caller (`from`).
    Source,
    /// Whose credential the call carries (`users`).
    User,
    /// The port (`to.ports`).
    Port,
    /// The method (`to.methods`).
    Method,
    /// The path (`to.paths`).
    Path,
    /// The rule's end (`expires`).
    Expired,
}

/// Takes the decision of [`Policy::decide`] and says why.
pub(super) fn explanation(policy: &Policy, call: &Call<'_>) -> Explanation {
    let outcome = policy.evaluate(call);
    let decided = outcome.rule.and_then(|rule| policy.rules.get(rule));
    let because = match decided {
        Some(rule) => by_rule(rule, outcome.verdict, call),
        None => by_default(policy, outcome.verdict, call),
    };
    let nearest = if decided.is_none() {
        nearest(policy, call)
    } else {
        None
    };
    let decision = policy.decision(&outcome);
    let because = match (&decision.would_deny, outcome.rule) {
        (Some(audit), Some(_)) => format!("{because} The audit rule {audit} would deny it."),
        _ => because,
    };
    Explanation {
        decision,
        because,
        nearest,
    }
}

/// The allow rule for this service whose first failing condition comes last; of several, the first.
fn nearest(policy: &Policy, call: &Call<'_>) -> Option<Nearest> {
    let of_service =
        |rule: &&Rule| rule.config.action == Action::Allow && rule.covers_service(call.service);
    let failing = policy.rules.iter().filter(of_service);
    let mut best: Option<(Condition, &Rule)> = None;
    for rule in failing {
        let Some(failed) = rule.first_failure(call) else {
            continue;
        };
        if best.is_none_or(|(condition, _)| failed > condition) {
            best = Some((failed, rule));
        }
    }
    let (failed, rule) = best?;
    let because = format!(
        "Nearest is rule {}: {}.",
        rule.name,
        failure(rule, failed, call)
    );
    Some(Nearest {
        rule: Arc::clone(&rule.name),
        failed,
        because,
    })
}

fn by_default(policy: &Policy, verdict: Verdict, call: &Call<'_>) -> String {
    let subject = subject(call);
    if verdict == Verdict::Allow {
        return format!(
            "{subject} passes only because the policy's default is audit: no rule allows it."
        );
    }
    if !call.caller.is_authenticated() {
        return format!(
            "{subject} is denied: the caller has neither a certificate nor a credential."
        );
    }
    if policy.is_empty() {
        return format!(
            "{subject} is denied: the policy has no rules, and what no rule allows is denied."
        );
    }
    if policy
        .rules
        .iter()
        .any(|rule| rule.covers_service(call.service))
    {
        return format!("{subject} is denied: no rule allows it.");
    }
    format!("{subject} is denied: no rule is about {}.", call.service)
}

fn by_rule(rule: &Rule, verdict: Verdict, call: &Call<'_>) -> String {
    let verb = match verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    };
    let reason = rule
        .config
        .reason
        .as_ref()
        .map_or(String::new(), |reason| format!(" Its reason: {reason}."));
    let owner = rule
        .config
        .owner
        .as_ref()
        .map_or(String::new(), |owner| format!(" Its owner: {owner}."));
    format!(
        "{} is {verb} by rule {}.{reason}{owner}",
        subject(call),
        rule.name
    )
}

/// The call in words: `GET /api/orders of order-service:50051, called by spiffe://…,`.
fn subject(call: &Call<'_>) -> String {
    let what = match &call.http {
        Some(http) => format!("{} {} of", http.method, http.path),
        None => "A connection to".to_owned(),
    };
    format!(
        "{what} {}:{}, called by {},",
        call.service,
        call.port,
        caller(call)
    )
}

fn caller(call: &Call<'_>) -> String {
    let user = call.caller.user.as_ref().map(|user| {
        let groups = if user.groups.is_empty() {
            String::new()
        } else {
            format!(" (groups {})", user.groups.join(", "))
        };
        format!("{} of {}{groups}", user.subject, user.issuer)
    });
    match (&call.caller.spiffe_id, user) {
        (Some(id), Some(user)) => format!("{id} for {user}"),
        (Some(id), None) => id.to_string(),
        (None, Some(user)) => format!("{user} without a certificate"),
        (None, None) => "nobody known".to_owned(),
    }
}

fn failure(rule: &Rule, failed: Condition, call: &Call<'_>) -> String {
    let to = &rule.config.to;
    let no_http = "a connection that is not HTTP has none".to_owned();
    match failed {
        Condition::Source => format!(
            "the caller is none of its from: {}",
            rule.config.from.join(", ")
        ),
        Condition::User => format!(
            "the call carries a credential of none of its users: {}",
            rule.config.users.join(", ")
        ),
        Condition::Port => {
            let ports: Vec<String> = to.ports.iter().map(u16::to_string).collect();
            format!(
                "the port {} is none of its ports: {}",
                call.port,
                ports.join(", ")
            )
        }
        Condition::Method => {
            let given = call
                .http
                .as_ref()
                .map_or(no_http, |http| format!("{} is none of them", http.method));
            format!("its methods are {}; {given}", to.methods.join(", "))
        }
        Condition::Path => {
            let given = call.http.as_ref().map_or(no_http, |http| {
                format!("{} matches none of them", http.path)
            });
            format!("its paths are {}; {given}", to.paths.join(", "))
        }
        Condition::Expired => {
            format!(
                "it would allow this, but ended {}",
                rule.config.expires.as_deref().unwrap_or_default()
            )
        }
    }
}
