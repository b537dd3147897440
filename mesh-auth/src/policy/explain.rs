//! Decisions with their reasons: what was evaluated, what decided, and what would turn it.

use std::fmt;
use std::sync::Arc;

use super::change::smallest;
use super::rule::Rule;
use super::{Action, Call, Change, Decision, IntentionAction, NoChange, Outcome, Policy, Verdict};

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
    /// The rules about the called service that match or come near, in the order in which they count: deny rules that
    /// match, allow rules, audit rules, among them the intention that is about the call, then the [`NEAR_STEPS`] that come nearest. Of those that match, at most
    /// [`MATCHING_STEPS`] of each action.
    pub chain: Vec<Step>,
    /// Rules about the called service that the chain leaves out.
    pub left_out: usize,
    /// The smallest change that would turn the verdict.
    pub change: Result<Change, NoChange>,
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

/// A rule that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Its name.
    pub rule: Arc<str>,
    /// What it does.
    pub action: Action,
    /// Whether the verdict is this rule's.
    pub decides: bool,
    /// The first condition that the request does not meet; none where the rule matches.
    pub failed: Option<Failed>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.action.as_str(), self.rule)?;
        match &self.failed {
            Some(failed) => write!(f, "{failed}"),
            None if self.decides => f.write_str("matches, and decides"),
            None => f.write_str("matches"),
        }
    }
}

/// A condition that was not met.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Failed {
    /// Which one.
    pub condition: Condition,
    /// What the rule asks for, as written.
    pub expected: String,
    /// What the call has there.
    pub given: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            condition,
            expected,
            given,
        } = self;
        match condition {
            Condition::Source => write!(f, "the caller is none of its from: {expected}"),
            Condition::User => write!(
                f,
                "the call carries a credential of none of its users: {expected}"
            ),
            Condition::Port => write!(f, "the port {given} is none of its ports: {expected}"),
            Condition::Method => write!(f, "its methods are {expected}; {given} is none of them"),
            Condition::Path => write!(f, "its paths are {expected}; {given} matches none of them"),
            Condition::Expired => write!(f, "it would match, but ended {expected}"),
            Condition::When => write!(f, "its condition is {expected}; {given}"),
        }
    }
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
    /// The condition (`when`).
    When,
}

impl Condition {
    /// Its key in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "from",
            Self::User => "users",
            Self::Port => "to.ports",
            Self::Method => "to.methods",
            Self::Path => "to.paths",
            Self::Expired => "expires",
            Self::When => "when",
        }
    }
}

/// Takes the decision of [`Policy::decide`] and says why.
pub(super) fn explanation(policy: &Policy, call: &Call<'_>) -> Explanation {
    let outcome = policy.evaluate(call);
    let decided = outcome.rule.and_then(|rule| policy.rules.get(rule));
    let intention = outcome
        .intention
        .and_then(|intention| policy.intentions.name(intention));
    let because = match (decided, &intention) {
        (Some(rule), _) => by_rule(rule, outcome.verdict, call),
        (None, Some(intention)) => {
            format!(
                "{} is {} by {intention}.",
                subject(call),
                verb(outcome.verdict)
            )
        }
        (None, None) => by_default(policy, outcome.verdict, call),
    };
    let nearest = if decided.is_none() && intention.is_none() {
        nearest(policy, call)
    } else {
        None
    };
    let decision = policy.decision(&outcome);
    let because = match (&decision.would_deny, &decision.rule) {
        (Some(audit), Some(_)) => format!("{because} The audit rule {audit} would deny it."),
        _ => because,
    };
    let (mut chain, left_out) = chain(policy, call, &outcome);
    if let Some(step) = intended(policy, call, &outcome) {
        // What denies counts before every allow rule, what allows behind them.
        let before = |step: &Step, own: &Step| {
            let is_earlier = match own.action {
                Action::Deny => step.action == Action::Deny,
                _ => step.action != Action::Audit,
            };
            step.failed.is_none() && is_earlier
        };
        let place = chain
            .iter()
            .take_while(|other| before(other, &step))
            .count();
        chain.insert(place, step);
    }
    Explanation {
        decision,
        because,
        nearest,
        chain,
        left_out,
        change: smallest::change(policy, call, &outcome),
    }
}

/// The rules about the service in the order in which they count, and how many are left out.
fn chain(policy: &Policy, call: &Call<'_>, outcome: &Outcome) -> (Vec<Step>, usize) {
    let of_service = policy.rules.iter().enumerate();
    let mut looked_at: Vec<(usize, &Rule, Option<Condition>)> = of_service
        .filter(|(_, rule)| rule.covers_service(call.service))
        .map(|(position, rule)| (position, rule, rule.first_failure(call)))
        .collect();
    let all = looked_at.len();
    // The later its first failing condition, the nearer a rule comes.
    looked_at.sort_by_key(|(position, rule, failed)| {
        let order = match (failed, rule.config.action) {
            (None, Action::Deny) => (0, None),
            (None, Action::Allow) => (1, None),
            (None, Action::Audit) => (2, None),
            (Some(condition), _) => (3, Some(std::cmp::Reverse(*condition))),
        };
        (order, *position)
    });
    let mut shown = [0_usize; 4];
    looked_at.retain(|(position, rule, failed)| {
        let (group, most) = match (failed, rule.config.action) {
            (None, Action::Deny) => (0, MATCHING_STEPS),
            (None, Action::Allow) => (1, MATCHING_STEPS),
            (None, Action::Audit) => (2, MATCHING_STEPS),
            (Some(_), _) => (3, NEAR_STEPS),
        };
        shown[group] += 1;
        shown[group] <= most || outcome.rule == Some(*position)
    });
    let left_out = all - looked_at.len();
    let step = |(position, rule, failed): (usize, &Rule, Option<Condition>)| Step {
        rule: Arc::clone(&rule.name),
        action: rule.config.action,
        decides: outcome.rule == Some(position),
        failed: failed.map(|condition| failure(rule, condition, call)),
    };
    (looked_at.into_iter().map(step).collect(), left_out)
}

/// The intention that is about the call, if it says anything.
fn intended(policy: &Policy, call: &Call<'_>, outcome: &Outcome) -> Option<Step> {
    let (position, action) = policy.intentions.decide(call, &policy.scope.own)?;
    Some(Step {
        rule: policy.intentions.name(position)?,
        action: match action {
            IntentionAction::Allow => Action::Allow,
            IntentionAction::Deny => Action::Deny,
        },
        decides: outcome.intention == Some(position),
        failed: None,
    })
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
    let verb = verb(verdict);
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

fn verb(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    }
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
        let groups: Vec<String> = user.groups.iter().map(|group| shown(group)).collect();
        let groups = if groups.is_empty() {
            String::new()
        } else {
            format!(" (groups {})", groups.join(", "))
        };
        format!(
            "{} of {}{groups}",
            shown(&user.subject),
            shown(&user.issuer)
        )
    });
    match (&call.caller.spiffe_id, user) {
        (Some(id), Some(user)) => format!("{id} for {user}"),
        (Some(id), None) => id.to_string(),
        (None, Some(user)) => format!("{user} without a certificate"),
        (None, None) => "nobody known".to_owned(),
    }
}

/// What a credential says, so that it can't break a line or the terminal that shows it.
pub(super) fn shown(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

fn failure(rule: &Rule, condition: Condition, call: &Call<'_>) -> Failed {
    let config = &rule.config;
    let to = &config.to;
    let no_http = || "a connection that is not HTTP".to_owned();
    let ports = || to.ports.iter().map(u16::to_string).collect::<Vec<_>>();
    let (expected, given) = match condition {
        Condition::Source => (config.from.join(", "), caller(call)),
        Condition::User => (config.users.join(", "), caller(call)),
        Condition::Port => (ports().join(", "), call.port.to_string()),
        Condition::Method => (
            to.methods.join(", "),
            call.http
                .as_ref()
                .map_or_else(no_http, |http| http.method.to_string()),
        ),
        Condition::Path => (
            to.paths.join(", "),
            call.http
                .as_ref()
                .map_or_else(no_http, |http| http.path.to_owned()),
        ),
        Condition::Expired => (
            config.expires.clone().unwrap_or_default(),
            super::time::date(call.now),
        ),
        Condition::When => (
            config.when.clone().unwrap_or_default(),
            match rule.when().and_then(|when| when.evaluate(call).failure) {
                Some(failure) => failure.to_string(),
                None => "it does not hold".to_owned(),
            },
        ),
    };
    Failed {
        condition,
        expected,
        given,
    }
}

/// Most rules of one action that match and are shown.
pub const MATCHING_STEPS: usize = 100;
/// Most rules that do not match and are shown.
pub const NEAR_STEPS: usize = 10;
