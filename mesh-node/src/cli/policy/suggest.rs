//! `mesh-node policy suggest`: least-privilege rules drafted from recorded decisions.

use std::ops::ControlFlow;
use std::path::PathBuf;

use mesh_auth::policy::Drafter;
use mesh_auth::policy::PolicyConfig;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::Domain;
use super::Failure;
use super::Report;
use crate::cli::record;
use crate::config::NodeConfig;
use crate::explanation::rule_json;

/// The arguments of `policy suggest`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The audit log. Default: that of the configuration.
    #[arg(long, value_name = "RECORD")]
    over: Option<PathBuf>,
    #[command(flatten)]
    domain: Domain,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let (own, _) = args.domain.scope(context)?;
    let over = match &args.over {
        Some(path) => path.clone(),
        None => {
            NodeConfig::load(&args.domain.config, &context.environment)?
                .audit
                .path
        }
    };
    let mut drafter = Drafter::new(&own);
    let read = record::decisions(&over, |entry| {
        if let Ok(recorded) = &entry.recorded {
            drafter.add(recorded);
        }
        ControlFlow::Continue(())
    })?;
    let drafts = drafter.drafts();
    let mut notes = vec![format!(
        "Drafted from {} recorded decision(s) of {}; nothing is changed. Read each rule before you use it.",
        read.decisions,
        over.display()
    )];
    for (count, what) in [
        (drafter.refused(), "that a deny rule refused"),
        (drafter.unauthenticated(), "of callers who proved nothing"),
        (
            drafter.left_out(),
            "beyond the number of different calls that are kept",
        ),
    ] {
        if count > 0 {
            notes.push(format!("Not drafted from: {count} call(s) {what}."));
        }
    }
    notes.extend(
        read.warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    let notes: String = notes
        .iter()
        .map(|note| format!("# {note}\n"))
        .collect::<Vec<_>>()
        .concat();
    let rules = drafts.iter().map(|draft| draft.rule.clone());
    let policy = rules.fold(PolicyConfig::default(), PolicyConfig::with_rule);
    let json: Vec<Value> = drafts
        .iter()
        .map(|draft| {
            let seen = &draft.seen;
            json!({
                "rule": rule_json(&draft.rule), "calls": seen.calls, "denied": seen.denied,
                "would_deny": seen.would_deny, "first": seen.first, "last": seen.last,
            })
        })
        .collect();
    let json = json!({
        "ok": true, "drafts": json, "decisions": read.decisions, "refused": drafter.refused(),
        "unauthenticated": drafter.unauthenticated(), "left_out": drafter.left_out(), "warnings": read.warnings,
    });
    Ok(Report::new(format!("{notes}{}", policy.to_yaml()), json))
}
