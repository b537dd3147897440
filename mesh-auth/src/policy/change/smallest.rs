//! Looks for the smallest change: makes each candidate, sees whether it does what it should, and takes the cheapest.

use super::super::intentions::{Intentions, service_of};
use super::super::rule::Rule;
use super::super::source::Source;
use super::super::time::{DAY, date};
use super::super::{
    Action, Call, Condition, DefaultAction, IntentionAction, IntentionConfig, IntentionPermission,
    MAX_CONDITIONS, MAX_INTENTIONS, MAX_RULES, Outcome, Policy, RuleConfig, Verdict,
};
use super::breadth::Breadth;
use super::{Change, Edit, List, MAX_EDITS, NoChange, RuleEdit};

/// The smallest change that turns `outcome`.
pub(in crate::policy) fn change(
    policy: &Policy,
    call: &Call<'_>,
    outcome: &Outcome,
) -> Result<Change, NoChange> {
    let (turns_to, chosen) = match outcome.verdict {
        Verdict::Deny => (Verdict::Allow, to_allow(policy, call)?),
        Verdict::Allow => (Verdict::Deny, to_deny(policy, call)?),
    };
    let rules = chosen
        .iter()
        .filter_map(|candidate| candidate.after.clone());
    let intentions = chosen.iter().filter_map(|candidate| match &candidate.edit {
        Edit::SetIntention(intention) => Some((**intention).clone()),
        _ => None,
    });
    Ok(Change {
        turns_to,
        rules: rules.collect(),
        intentions: intentions.collect(),
        edits: chosen.into_iter().map(|candidate| candidate.edit).collect(),
    })
}

/// An edit that does its part, and how many other calls it counts.
struct Candidate {
    edit: Edit,
    cost: u64,
    after: Option<RuleConfig>,
}

/// The cheapest; of several the first.
fn cheapest(candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    candidates.min_by_key(|candidate| candidate.cost)
}

/// No deny rule may match any more, and an allow rule must.
fn to_allow(policy: &Policy, call: &Call<'_>) -> Result<Vec<Candidate>, NoChange> {
    if !call.caller.is_authenticated() {
        return Err(NoChange::Unauthenticated);
    }
    let denies: Vec<&Rule> = matching(policy, call, Action::Deny).collect();
    if denies.len() >= MAX_EDITS {
        return Err(NoChange::TooManyRules {
            rules: denies.len(),
        });
    }
    let exempt = |rule: &Rule| {
        let except = except(policy, rule, call);
        cheapest(
            removals(policy, rule, call)
                .chain(except)
                .chain([removal(rule)]),
        )
    };
    let mut chosen: Vec<Candidate> = denies.into_iter().filter_map(exempt).collect();
    let intended = policy.intentions.decide(call, &policy.scope.own);
    if let Some((position, IntentionAction::Deny)) = intended {
        chosen.push(intention(policy, call, position).ok_or_else(|| {
            let name = policy.intentions.name(position).unwrap_or_default();
            NoChange::Intention {
                intention: name.to_string(),
            }
        })?);
        return Ok(chosen);
    }
    let is_allowed = matching(policy, call, Action::Allow).next().is_some()
        || intended.is_some()
        || policy.default == DefaultAction::Audit;
    if !is_allowed {
        let of_service = policy.rules.iter().filter(|rule| {
            rule.config.action == Action::Allow && rule.covers_service(call.service)
        });
        let widened = of_service.filter_map(|rule| widened(policy, rule, call));
        let added = added(policy, call, Action::Allow, &chosen);
        chosen.push(cheapest(widened.chain(added)).ok_or(NoChange::Unspeakable)?);
    }
    Ok(chosen)
}

/// No allow rule and no default may let it pass, or a deny rule must match.
fn to_deny(policy: &Policy, call: &Call<'_>) -> Result<Vec<Candidate>, NoChange> {
    let added = added(policy, call, Action::Deny, &[]);
    let allows: Vec<&Rule> = matching(policy, call, Action::Allow).collect();
    // What an intention or the default allows, only a rule that denies turns.
    let is_closed = policy.intentions.decide(call, &policy.scope.own).is_none()
        && (policy.default == DefaultAction::Deny || !call.caller.is_authenticated());
    if !is_closed || allows.len() > MAX_EDITS {
        return added.map(|rule| vec![rule]).ok_or(NoChange::Unspeakable);
    }
    let tighten = |rule: &Rule| cheapest(removals(policy, rule, call).chain([removal(rule)]));
    let tightened: Vec<Candidate> = allows.into_iter().filter_map(tighten).collect();
    let cost = tightened
        .iter()
        .fold(0_u64, |sum, candidate| sum.saturating_add(candidate.cost));
    Ok(match added {
        Some(rule) if rule.cost < cost => vec![rule],
        _ => tightened,
    })
}

fn matching<'a>(
    policy: &'a Policy,
    call: &'a Call<'_>,
    action: Action,
) -> impl Iterator<Item = &'a Rule> {
    policy.rules.iter().filter(move |rule| {
        rule.config.action == action
            && rule.covers_service(call.service)
            && rule.first_failure(call).is_none()
    })
}

/// The edit, if it makes the rule match the call, or no longer match it, as `matches` asks.
fn checked(
    policy: &Policy,
    rule: &Rule,
    call: &Call<'_>,
    (edit, matches): (RuleEdit, bool),
    cost: u64,
) -> Option<Candidate> {
    let mut config = rule.config.clone();
    edit.make(&mut config);
    let compiled = Rule::compile(&config, &policy.scope).ok()?;
    let does = compiled.first_failure(call).is_none() == matches;
    does.then(|| Candidate {
        edit: Edit::Rule {
            rule: config.name.clone(),
            edit,
        },
        cost,
        after: Some(config),
    })
}

/// The one entry, or the end, that keeps an allow rule from matching, if it is only one.
fn widened(policy: &Policy, rule: &Rule, call: &Call<'_>) -> Option<Candidate> {
    let add = |list, value: String| Some((list, value));
    let added = match rule.first_failure(call)? {
        Condition::Source => add(List::From, name_of_caller(policy, call)?),
        Condition::User => {
            let user = call.caller.user.as_ref()?;
            add(List::Users, format!("subject:{}", user.subject))
        }
        Condition::Port => add(List::Ports, call.port.to_string()),
        Condition::Method => add(List::Methods, call.http.as_ref()?.method.to_string()),
        Condition::Path => add(List::Paths, exact(call.http.as_ref()?.path)),
        Condition::Expired => None,
        // What somebody wrote by hand is not rewritten so that it lets more pass.
        Condition::When => return None,
    };
    let breadth = Breadth::of(rule);
    let (edit, cost) = match added {
        Some((list, value)) => (RuleEdit::Add { list, value }, breadth.beside(list)),
        None => {
            let expires = date(call.now.saturating_add(GRACE_DAYS * DAY));
            (RuleEdit::End { expires }, breadth.product())
        }
    };
    checked(policy, rule, call, (edit, true), cost)
}

/// Each single entry without which the rule does not match.
fn removals<'a>(
    policy: &'a Policy,
    rule: &'a Rule,
    call: &'a Call<'_>,
) -> impl Iterator<Item = Candidate> {
    let to = &rule.config.to;
    let ports: Vec<String> = to.ports.iter().map(u16::to_string).collect();
    let lists = [
        (List::From, rule.config.from.clone()),
        (List::Users, rule.config.users.clone()),
        (List::Methods, to.methods.clone()),
        (List::Paths, to.paths.clone()),
        (List::Ports, ports),
    ];
    let breadth = Breadth::of(rule);
    // An empty list would leave its part open, so the last entry always stays.
    let several = lists.into_iter().filter(|(_, values)| values.len() > 1);
    several.flat_map(move |(list, values)| {
        let entries = values.into_iter().enumerate();
        let candidates = entries.filter_map(|(index, value)| {
            let cost = breadth
                .beside(list)
                .saturating_mul(breadth.entry(list, index));
            checked(
                policy,
                rule,
                call,
                (RuleEdit::Remove { list, value }, false),
                cost,
            )
        });
        candidates.collect::<Vec<_>>()
    })
}

/// The whole rule goes.
fn removal(rule: &Rule) -> Candidate {
    Candidate {
        edit: Edit::RemoveRule {
            rule: rule.config.name.clone(),
        },
        cost: Breadth::of(rule).product().saturating_mul(REMOVED),
        after: None,
    }
}

/// An intention for exactly this caller and service that allows this request first. Of every other request it says what
/// the one at `position` said, which decided until now.
fn intention(policy: &Policy, call: &Call<'_>, position: usize) -> Option<Candidate> {
    let http = call.http.as_ref()?;
    let old = policy.intentions.configs().nth(position)?;
    let this = IntentionPermission::new(IntentionAction::Allow)
        .with_methods(&[http.method.as_str()])
        .with_path_exact(http.path);
    let mut permissions = vec![this];
    // As Consul writes a permission about every request.
    let every = |action| IntentionPermission::new(action).with_path_prefix("/");
    permissions.extend(old.action.map(every));
    permissions.extend(old.permissions.iter().cloned());
    let source = service_of(call.caller, &policy.scope.own)?;
    let mut new = IntentionConfig::with_permissions(source, call.service, permissions);
    if old.source == new.source && old.destination == new.destination {
        new.id.clone_from(&old.id);
    }
    let mut all: Vec<IntentionConfig> = policy.intentions.configs().cloned().collect();
    super::set(&mut all, &new);
    if all.len() > MAX_INTENTIONS {
        return None;
    }
    let compiled = Intentions::compile(&all, &policy.scope.own).ok()?;
    let decided = compiled.decide(call, &policy.scope.own);
    matches!(decided, Some((_, IntentionAction::Allow))).then(|| Candidate {
        edit: Edit::SetIntention(Box::new(new)),
        cost: NEW_RULE,
        after: None,
    })
}

/// A condition that leaves this one call out of a deny rule.
fn except(policy: &Policy, rule: &Rule, call: &Call<'_>) -> Option<Candidate> {
    let conditional = policy
        .rules
        .iter()
        .filter(|rule| rule.config.when.is_some());
    if rule.config.when.is_none() && conditional.count() + MAX_EDITS > MAX_CONDITIONS {
        return None;
    }
    let this = condition(call)?;
    let when = match &rule.config.when {
        Some(when) => format!("!({this}) && ({when})"),
        None => format!("!({this})"),
    };
    checked(
        policy,
        rule,
        call,
        (RuleEdit::When { when }, false),
        EXCEPTION,
    )
}

/// The condition that holds for this call, and without failing does not hold for any other.
fn condition(call: &Call<'_>) -> Option<String> {
    let mut parts = Vec::new();
    let mut equal = |name: &str, text: &str, is_always_there: bool| {
        if !is_always_there {
            parts.push(format!("has({name})"));
        }
        parts.push(format!("{name} == {}", literal(text)));
    };
    if let Some(id) = &call.caller.spiffe_id {
        equal("source.spiffe_id", id.as_str(), false);
    }
    if let Some(user) = &call.caller.user {
        equal("user.issuer", &user.issuer, false);
        equal("user.subject", &user.subject, false);
    }
    equal("destination.service", call.service, true);
    let http = call.http.as_ref()?;
    equal("request.method", http.method.as_str(), false);
    equal(
        "request.path",
        std::str::from_utf8(&http.plain_path).ok()?,
        false,
    );
    parts.push(format!("destination.port == {}", call.port));
    Some(parts.join(" && "))
}

/// A text as CEL writes it, whose escapes include those of JSON but for the escaped slash, which is never written.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A rule about this call and no other.
fn added(
    policy: &Policy,
    call: &Call<'_>,
    action: Action,
    others: &[Candidate],
) -> Option<Candidate> {
    let removed = others.iter().filter(|other| other.after.is_none()).count();
    if policy.rules.len().saturating_sub(removed) >= MAX_RULES {
        return None;
    }
    let mut rule =
        RuleConfig::new(&free_name(policy, call, action), &[], call.service).with_action(action);
    let user = call.caller.user.as_deref();
    match (&call.caller.spiffe_id, user) {
        (Some(_), _) => rule.from.push(name_of_caller(policy, call)?),
        (None, Some(user)) => rule.from.push(format!("issuer:{}", user.issuer)),
        (None, None) => return None,
    }
    if let Some(user) = user {
        rule.users.push(format!("subject:{}", user.subject));
    }
    if call.port > 0 {
        rule.to.ports.push(call.port);
    }
    if let Some(http) = &call.http {
        rule.to.methods.push(http.method.to_string());
        rule.to.paths.push(exact(http.path));
    }
    let compiled = Rule::compile(&rule, &policy.scope).ok()?;
    let matches = compiled.first_failure(call).is_none();
    matches.then(|| Candidate {
        edit: Edit::AddRule(Box::new(rule.clone())),
        cost: NEW_RULE,
        after: Some(rule),
    })
}

/// As a rule would name the caller: a service of the own trust domain by its name.
fn name_of_caller(policy: &Policy, call: &Call<'_>) -> Option<String> {
    let id = call.caller.spiffe_id.as_ref()?;
    let is_own = *id.trust_domain() == policy.scope.own;
    let name = id.service();
    let is_plain = Source::parse(name, &policy.scope.own) == Ok(Source::Id(id.clone()));
    Some(if is_own && is_plain {
        name.to_owned()
    } else {
        id.to_string()
    })
}

/// `web-get-orders`, with a number where that is taken.
fn free_name(policy: &Policy, call: &Call<'_>, action: Action) -> String {
    let id = call.caller.spiffe_id.as_ref();
    let caller = match (id, &call.caller.user) {
        (Some(id), _) => id.path(),
        (None, Some(user)) => &*user.subject,
        (None, None) => "anonymous",
    };
    let method = call.http.as_ref().map(|http| http.method.as_str());
    let parts = [
        action.as_str(),
        caller,
        method.unwrap_or("connect"),
        call.service,
    ];
    let name = slug(&parts.join("-"));
    let is_taken = |name: &str| policy.rules.iter().any(|rule| *rule.name == *name);
    if !is_taken(&name) {
        return name;
    }
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    // As many names as there are rules can be taken, no more.
    numbered
        .take(MAX_RULES + 1)
        .find(|name| !is_taken(name))
        .unwrap_or_default()
}

/// Lower-case letters, digits and single dashes, of a length that leaves room for a number.
pub(in crate::policy) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().take(MAX_SLUG * 4) {
        if slug.len() >= MAX_SLUG {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// The pattern that matches this canonical path alone. A star in it would be read as more than its letter.
fn exact(path: &str) -> String {
    path.replace('*', "%2A")
}

/// What a rule more counts: as much as four callers of a prefix.
const NEW_RULE: u64 = 64;
/// How many times what it covers a removed rule counts.
const REMOVED: u64 = 16;
/// What an exception in a condition counts.
const EXCEPTION: u64 = 32;
/// How long a rule that has ended is suggested to go on: long enough to ask its owner.
const GRACE_DAYS: u64 = 7;
/// Leaves room for a number below the longest name of a rule.
const MAX_SLUG: usize = 100;
