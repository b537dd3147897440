//! `mesh-node policy diff`: which recorded decisions another policy would turn.

use std::ops::ControlFlow;
use std::path::PathBuf;

use mesh_auth::policy::Compared;
use mesh_auth::policy::DEFAULT_RULE;
use mesh_auth::policy::Decision;
use mesh_auth::policy::compare;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::Domain;
use super::Failure;
use super::Report;
use super::of_file;
use super::with_warnings;
use crate::cli::record;

/// The arguments of `policy diff`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A policy file: what else stands in the policy section of a configuration.
    before: PathBuf,
    /// Another one.
    after: PathBuf,
    /// The audit log whose decisions are made again.
    #[arg(long, value_name = "RECORD")]
    over: PathBuf,
    #[command(flatten)]
    domain: Domain,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    lines: Vec<String>,
    json: Vec<Value>,
    same: u64,
    turned: u64,
    undecidable: u64,
    missing: std::collections::BTreeSet<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let (_, scope) = args.domain.scope(context)?;
    let before = of_file(&args.before, &scope, context)?;
    let after = of_file(&args.after, &scope, context)?;
    let mut found = Found::default();
    let read = record::decisions(&args.over, |entry| {
        if let Ok(recorded) = &entry.recorded {
            match compare(&before, &after, &recorded.facts) {
                Compared::Same => found.same += 1,
                Compared::Turned { before, after } => found.turned(&entry, &before, &after),
                Compared::Undecidable { missing } => {
                    found.undecidable += 1;
                    // Whoever wrote the record chose the names, so there is a bound.
                    let room = MOST_MISSING.saturating_sub(found.missing.len());
                    found.missing.extend(missing.into_iter().take(room));
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    let Found {
        mut lines,
        json,
        same,
        turned,
        undecidable,
        missing,
    } = found;
    let listed = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    if turned > listed {
        lines.push(format!("and {} more", turned - listed));
    }
    lines.push(format!(
        "{turned} of {} recorded decision(s) would be turned",
        same + turned
    ));
    let mut warnings = read.warnings;
    let missing: Vec<String> = missing.into_iter().collect();
    if undecidable > 0 {
        warnings.push(format!(
            "{undecidable} decision(s) can't be made again, as this was not recorded: {}",
            missing.join(", ")
        ));
    }
    let mut text = lines.join("\n");
    with_warnings(&mut text, &warnings);
    let json = json!({
        "ok": turned == 0, "turned": turned, "same": same, "undecidable": undecidable, "missing": missing,
        "differences": json, "warnings": warnings,
    });
    Ok(Report::new(text, json).that_holds(turned == 0))
}

impl Found {
    fn turned(&mut self, entry: &record::Entry, before: &Decision, after: &Decision) {
        self.turned += 1;
        if self.lines.len() >= MOST_LISTED {
            return;
        }
        let field = |name: &str| entry.fields.get(name).map_or("", String::as_str);
        let (old, new) = (before.verdict.as_str(), after.verdict.as_str());
        let (old_rule, new_rule) = (rule(before), rule(after));
        let call = match field("method") {
            "" => "connection".to_owned(),
            method => format!("{method} {}", field("path")),
        };
        let caller = match (field("peer"), field("user_subject")) {
            (peer, "") => peer.to_owned(),
            ("", user) => user.escape_debug().to_string(),
            (peer, user) => format!("{peer} for {}", user.escape_debug()),
        };
        self.lines.push(format!(
            "{} {} {old} by {old_rule} -> {new} by {new_rule}: {call} of {} by {caller}",
            field("decision"),
            entry.time,
            field("service"),
        ));
        self.json.push(json!({
            "decision": field("decision"), "time": entry.time,
            "before": { "verdict": old, "rule": old_rule }, "after": { "verdict": new, "rule": new_rule },
            "record": entry.fields,
        }));
    }
}

fn rule(decision: &Decision) -> &str {
    decision.rule.as_deref().unwrap_or(DEFAULT_RULE)
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  no recorded decision would be turned
  1  some would, or the record can't be read
  2  wrong usage, or a wrong policy";
/// More lines than anybody reads; the number is exact all the same.
const MOST_LISTED: usize = 10_000;
const MOST_MISSING: usize = 100;
