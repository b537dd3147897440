//! Explanations of decisions, for people and for programs.

use std::fmt::Display;
use std::fmt::Write as _;

use mesh_auth::policy::Action;
use mesh_auth::policy::Change;
use mesh_auth::policy::DEFAULT_RULE;
use mesh_auth::policy::Edit;
use mesh_auth::policy::Explanation;
use mesh_auth::policy::IntentionAction;
use mesh_auth::policy::IntentionConfig;
use mesh_auth::policy::IntentionPermission;
use mesh_auth::policy::RuleConfig;
use mesh_auth::policy::RuleEdit;
use mesh_auth::policy::Step;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// The explanation as JSON: the verdict, the whole chain, what decided, and the smallest change that would turn it.
pub(crate) fn as_json(explanation: &Explanation) -> Value {
    let decision = &explanation.decision;
    let chain: Vec<Value> = explanation.chain.iter().map(step_json).collect();
    let nearest = explanation.nearest.as_ref();
    let (change, no_change) = match &explanation.change {
        Ok(change) => (change_json(change), Value::Null),
        Err(why) => (Value::Null, Value::from(why.to_string())),
    };
    json!({
        "verdict": decision.verdict.as_str(),
        "rule": decision.rule.as_deref().unwrap_or(DEFAULT_RULE),
        "would_deny": decision.would_deny.as_deref(),
        "because": explanation.to_string(),
        "nearest": nearest.map(|nearest| json!({ "rule": &*nearest.rule, "condition": nearest.failed.as_str() })),
        "chain": chain,
        "left_out": explanation.left_out,
        "change": change,
        "no_change": no_change,
    })
}

/// A rule as JSON, as it stands in a policy file.
pub(crate) fn rule_json(rule: &RuleConfig) -> Value {
    let to = &rule.to;
    let mut json = json!({
        "name": rule.name,
        "from": rule.from,
        "to": { "service": to.service, "methods": to.methods, "paths": to.paths, "ports": to.ports },
        "action": rule.action.as_str(),
    });
    if let Value::Object(json) = &mut json {
        if !rule.users.is_empty() {
            json.insert("users".to_owned(), json!(rule.users));
        }
        for (key, text) in [
            ("when", &rule.when),
            ("owner", &rule.owner),
            ("reason", &rule.reason),
            ("expires", &rule.expires),
        ] {
            if let Some(text) = text {
                json.insert(key.to_owned(), json!(text));
            }
        }
    }
    json
}

fn step_json(step: &Step) -> Value {
    let failed = step.failed.as_ref().map(|failed| {
        json!({
            "condition": failed.condition.as_str(), "expected": failed.expected, "given": failed.given,
            "because": failed.to_string(),
        })
    });
    json!({
        "rule": &*step.rule,
        "action": step.action.as_str(),
        "matches": step.failed.is_none(),
        "decides": step.decides,
        "failed": failed,
    })
}

fn change_json(change: &Change) -> Value {
    let edits: Vec<Value> = change.edits.iter().map(edit_json).collect();
    let rules: Vec<Value> = change.rules.iter().map(rule_json).collect();
    json!({
        "turns_to": change.turns_to.as_str(), "summary": change.to_string(), "edits": edits, "rules": rules,
    })
}

fn edit_json(edit: &Edit) -> Value {
    match edit {
        Edit::AddRule(rule) => json!({ "add_rule": rule_json(rule) }),
        Edit::SetIntention(intention) => json!({ "set_intention": intention_json(intention) }),
        Edit::RemoveRule { rule } => json!({ "remove_rule": rule }),
        Edit::Rule { rule, edit } => match edit {
            RuleEdit::Add { list, value } => {
                json!({ "rule": rule, "add_to": list.as_str(), "value": value })
            }
            RuleEdit::Remove { list, value } => {
                json!({ "rule": rule, "remove_from": list.as_str(), "value": value })
            }
            RuleEdit::End { expires } => json!({ "rule": rule, "set_expires": expires }),
            RuleEdit::When { when } => json!({ "rule": rule, "set_when": when }),
            other => json!({ "rule": rule, "change": format!("{other:?}") }),
        },
        other => json!({ "change": other.to_string() }),
    }
}

/// An intention as it stands among the sources of Consul's `service-intentions` entry of the called service.
fn intention_json(intention: &IntentionConfig) -> Value {
    let action = |action: IntentionAction| match action {
        IntentionAction::Allow => "allow",
        IntentionAction::Deny => "deny",
    };
    let text = |name: &str, text: &Option<String>| {
        let text = text.as_ref()?;
        Some((name.to_owned(), Value::from(text.as_str())))
    };
    let permission = |permission: &IntentionPermission| {
        let mut http: Map<String, Value> = text("PathExact", &permission.path_exact)
            .into_iter()
            .chain(text("PathPrefix", &permission.path_prefix))
            .collect();
        if !permission.methods.is_empty() {
            http.insert("Methods".to_owned(), json!(permission.methods));
        }
        let headers = permission.headers.iter().map(|header| {
            let mut json = json!({ "Name": header.name });
            if let Value::Object(json) = &mut json {
                json.extend(
                    [
                        ("Exact", &header.exact),
                        ("Prefix", &header.prefix),
                        ("Suffix", &header.suffix),
                        ("Contains", &header.contains),
                    ]
                    .into_iter()
                    .filter_map(|(name, value)| text(name, value)),
                );
                let flags = [
                    ("Present", header.present),
                    ("IgnoreCase", header.ignore_case),
                    ("Invert", header.invert),
                ];
                let set = flags.into_iter().filter(|(_, is_set)| *is_set);
                json.extend(set.map(|(name, is_set)| (name.to_owned(), Value::from(is_set))));
            }
            json
        });
        let headers: Vec<Value> = headers.collect();
        if !headers.is_empty() {
            http.insert("Header".to_owned(), Value::Array(headers));
        }
        json!({ "Action": action(permission.action), "HTTP": http })
    };
    let permissions: Vec<Value> = intention.permissions.iter().map(permission).collect();
    let mut json = json!({ "Name": intention.source });
    if let Value::Object(json) = &mut json {
        if let Some(all) = intention.action {
            json.insert("Action".to_owned(), Value::from(action(all)));
        }
        if !permissions.is_empty() {
            json.insert("Permissions".to_owned(), Value::Array(permissions));
        }
    }
    json
}

/// The explanation as text: what decided, every rule that came near, and the smallest change.
pub(crate) fn as_text(explanation: &Explanation, service: &dyn Display) -> String {
    let mut text = format!("{explanation}\n");
    // A String takes whatever is written to it.
    let _written: std::fmt::Result = write_chain(explanation, service, &mut text)
        .and_then(|()| write_change(explanation, &mut text));
    text
}

fn write_chain(
    explanation: &Explanation,
    service: &dyn Display,
    out: &mut String,
) -> std::fmt::Result {
    if explanation.chain.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nRules about {service}, in the order in which they count:"
    )?;
    let decision = &explanation.decision;
    let names = explanation.chain.iter().map(|step| step.rule.len());
    let width = names.max().unwrap_or_default().min(LONGEST_NAME);
    let matching = |step: &&Step| step.failed.is_none();
    let matched = explanation.chain.iter().filter(matching);
    let has_default = decision.rule.is_none();
    let line = |out: &mut String, action: &str, rule: &str, said: &str| {
        writeln!(out, "  {action:<7} {rule:<width$}  {said}")
    };
    let said = |step: &Step| match &step.failed {
        Some(failed) => failed.to_string(),
        None if step.decides => "matches, and decides".to_owned(),
        None if step.action == Action::Audit => "matches, and would deny".to_owned(),
        None => "matches".to_owned(),
    };
    for step in matched {
        line(out, step.action.as_str(), &step.rule, &said(step))?;
    }
    if has_default {
        let said = match decision.would_deny {
            Some(_) => "lets it pass on trial, and decides",
            None => "decides: what no rule allows is denied",
        };
        line(out, "default", "", said)?;
    }
    for step in explanation
        .chain
        .iter()
        .filter(|step| step.failed.is_some())
    {
        line(out, step.action.as_str(), &step.rule, &said(step))?;
    }
    match explanation.left_out {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more that are further away"),
    }
}

fn write_change(explanation: &Explanation, out: &mut String) -> std::fmt::Result {
    let change = match &explanation.change {
        Ok(change) => change,
        Err(why) => return writeln!(out, "\nNo change: {why}."),
    };
    writeln!(
        out,
        "\nThe smallest change that would {} it: {change}.",
        change.turns_to.as_str()
    )?;
    for intention in &change.intentions {
        writeln!(
            out,
            "  Among the sources in Consul's service-intentions of {}: {}",
            intention.destination,
            intention_json(intention)
        )?;
    }
    for rule in &change.rules {
        for (number, line) in rule.to_yaml().lines().enumerate() {
            writeln!(out, "  {}{line}", if number == 0 { "- " } else { "  " })?;
        }
    }
    Ok(())
}

/// Longer names push what is said to the right.
const LONGEST_NAME: usize = 40;
