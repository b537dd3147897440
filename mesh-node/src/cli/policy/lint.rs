//! `mesh-node policy lint`: what is doubtful about a policy although it can be enforced.

use std::path::PathBuf;

use mesh_auth::policy::Finding;
use mesh_auth::policy::Severity;
use mesh_auth::policy::lint;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::Failure;
use super::Report;
use super::own;
use crate::adapt::policy::written;
use crate::cli::check::surroundings;
use crate::config::Document;

/// The arguments of `policy lint`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "mesh.yaml")]
    config: PathBuf,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let document = Document::read(&args.config, &context.environment)?;
    let config = document.config()?;
    let own = own(&config, &document)?;
    let surroundings = surroundings(&config, &own, context.unix_seconds());
    let findings = lint(&written(&config.policy), &surroundings);
    let rules = &config.policy.rules;
    let place = |finding: &Finding| {
        let index = rules.iter().position(|rule| rule.name == finding.rule);
        let key = index.map_or_else(
            || "policy.rules".to_owned(),
            |index| format!("policy.rules[{index}]"),
        );
        document.error(&key, finding.to_string()).to_string()
    };
    let mut lines: Vec<String> = findings.iter().map(place).collect();
    let is_serious = |finding: &&Finding| finding.severity >= Severity::Warning;
    let serious = findings.iter().filter(is_serious).count();
    let notes = findings.len() - serious;
    lines.push(format!(
        "{} rule(s): {serious} to look at, {notes} note(s)",
        rules.len()
    ));
    let json: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "rule": finding.rule, "kind": finding.kind.as_str(), "severity": finding.severity.as_str(),
                "message": finding.message,
            })
        })
        .collect();
    let json = json!({ "ok": serious == 0, "findings": json });
    Ok(Report::new(lines.join("\n"), json).that_holds(serious == 0))
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  nothing, or notes alone
  1  warnings or errors
  2  wrong usage, or a wrong configuration";
