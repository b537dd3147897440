//! `mesh-node explain --route`: which route a call of this node's application takes, why, and what is done with it.

use std::path::Path;

use mesh_auth::request::CanonicalRequest;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::Failure;
use super::Report;
use crate::config::ConfigError;
use crate::config::Document;
use crate::config::NodeConfig;
use crate::config::Place;
use crate::route::Asked;
use crate::route::Route;
use crate::route::RouteTable;

/// A call, as its answer repeats it.
pub(super) struct Described<'a> {
    pub(super) service: &'a str,
    pub(super) request: &'a CanonicalRequest,
}

pub(super) fn explain(
    call: &Described<'_>,
    file: &Path,
    context: &Context,
) -> Result<Report, Failure> {
    let document = Document::read(file, &context.environment)?;
    let config = document.config()?;
    let table = RouteTable::new(&config.routes)
        .map_err(|error| document.error(&error.key, error.problem.to_string()))?;
    let asked = Asked::new(call.service, call.request);
    let taken = table.find(&asked).route.map(AsRef::as_ref);
    let passed: Vec<(&Route, String)> = table
        .explain(&asked)
        .into_iter()
        .map(|(route, why)| (route.as_ref(), why.to_string()))
        .collect();
    let treatment = Treatment::of(&config, taken);
    let place = |route: &Route| place(&document.error(&format!("routes[{}]", route.index), ""));

    let what = format!("{} {} of {}", asked.method, asked.path, call.service);
    let mut lines = vec![match taken {
        Some(route) => format!("{what} takes the route {}, {}.", route.name, place(route)),
        None if table.routes().is_empty() => format!("{what} takes no route: there are none."),
        None => format!("{what} takes no route and goes to {}.", call.service),
    }];
    for (route, why) in &passed {
        lines.push(format!("  not {}, {}: {why}", route.name, place(route)));
    }
    let targets = taken.map_or_else(Vec::new, |route| targets(route, call.service));
    for target in &targets {
        lines.push(format!("  to {}", target.text));
    }
    lines.extend(treatment.lines());

    let passed: Vec<Value> = passed
        .iter()
        .map(|(route, why)| json!({ "route": &*route.name, "place": place(route), "why": why }))
        .collect();
    let json = json!({
        "ok": true,
        "service": call.service,
        "route": taken.map(|route| json!({ "name": &*route.name, "place": place(route) })),
        "passed_over": passed,
        "targets": targets.into_iter().map(|target| target.json).collect::<Vec<_>>(),
        "treatment": treatment.json(),
    });
    Ok(Report::new(lines.join("\n"), json))
}

/// File and line.
fn place(at: &ConfigError) -> String {
    match &at.place {
        Place::Position { line, .. } => format!("{}:{line}", at.file),
        _ => at.file.clone(),
    }
}

struct Target {
    text: String,
    json: Value,
}

/// Where the calls of a route go, with the share of each.
fn targets(route: &Route, called: &str) -> Vec<Target> {
    if route.redirect.is_some() {
        return Vec::new();
    }
    let total = route.targets.total();
    let targets = route.targets.all().iter().map(|target| {
        let service = target.service.as_deref().unwrap_or(called);
        let subset = serde_json::to_value(target.subset.as_deref()).unwrap_or_default();
        let like = if subset.is_null() {
            String::new()
        } else {
            format!(" with {}", plain(&subset))
        };
        // In ten-thousandths of a percent, rounded down.
        let share = u64::from(target.weight) * 1_000_000 / total;
        let (whole, rest) = (share / 10_000, share % 10_000);
        let percent = format!("{whole}.{rest:04}");
        let percent = percent.trim_end_matches('0').trim_end_matches('.');
        Target {
            text: format!("{service}{like}, {percent} % of the calls"),
            json: json!({
                "service": service,
                "subset": subset,
                "weight": target.weight,
                "of": total,
            }),
        }
    });
    targets.collect()
}

/// What is done with a call: each section, and whether the route says it.
struct Treatment {
    sections: Vec<(String, Value, bool)>,
}

impl Treatment {
    fn of(config: &NodeConfig, route: Option<&Route>) -> Self {
        let own = route.and_then(|route| config.routes.get(route.index));
        let own = serde_json::to_value(own).unwrap_or_default();
        let mut own = object(own);
        if route.is_some_and(|route| route.redirect.is_some()) {
            own.retain(|key, _| key == "redirect" || key == "response_headers");
        }
        let shared = serde_json::to_value(&config.resilience).unwrap_or_default();
        let mut shared = object(shared);
        let is_sent = route.is_none_or(|route| route.redirect.is_none());
        shared.retain(|key, _| is_sent && SHARED.contains(&key.as_str()) && !own.contains_key(key));
        let own = own
            .into_iter()
            .filter(|(key, _)| !SAID.contains(&key.as_str()))
            .map(|(key, value)| (key, value, true));
        let shared = shared.into_iter().map(|(key, value)| (key, value, false));
        let sections = own.chain(shared).filter(|(_, value, _)| !value.is_null());
        Self {
            sections: sections.collect(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.sections.iter().map(|(key, value, is_own)| {
            let whose = if *is_own {
                "by the route"
            } else {
                "by resilience"
            };
            format!("  {key}, {whose}: {}", plain(value))
        });
        lines.collect()
    }

    fn json(&self) -> Value {
        let sections = self.sections.iter().map(|(key, value, is_own)| {
            let whose = if *is_own { "route" } else { "resilience" };
            (key.clone(), json!({ "by": whose, "value": value }))
        });
        Value::Object(sections.collect())
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A value as a person reads it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::Object(_) | Value::Array(_) => format!("{key} ({})", plain(value)),
                _ => format!("{key} {}", plain(value)),
            })
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

/// What is said elsewhere in the answer.
const SAID: [&str; 3] = ["name", "match", "to"];
/// The sections of `resilience` that are about a call on its way out; a route may have one of its own.
const SHARED: [&str; 5] = ["timeout", "retry", "hedge", "circuit_breaker", "bulkhead"];
