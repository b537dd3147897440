//! `mesh-node audit`: the audit log.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use clap::Subcommand;
use mesh_audit::Head;
use mesh_audit::VerifyOptions;
use mesh_audit::verify;
use serde_json::json;

use super::report::Failure;
use super::report::Report;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Checks that nothing in a log was changed, inserted or taken out.
    ///
    /// A cut at the end shows only against a head that was kept elsewhere: each run prints it, and --expect-head or
    /// --expect-at-least takes it.
    Verify {
        /// The log.
        path: PathBuf,
        /// The log must end with this record, as an earlier run printed it.
        #[arg(long, value_name = "NUMBER:HASH")]
        expect_head: Option<Head>,
        /// The log must contain this record.
        #[arg(long, value_name = "NUMBER:HASH")]
        expect_at_least: Option<Head>,
    },
}

pub(super) fn run(command: &Command) -> Result<Report, Failure> {
    let Command::Verify {
        path,
        expect_head,
        expect_at_least,
    } = command;
    let mut options = VerifyOptions::default();
    if let Some(head) = expect_head {
        options = options.with_expect_head(*head);
    }
    if let Some(head) = expect_at_least {
        options = options.with_expect_at_least(*head);
    }
    check(path, &options)
}

fn check(path: &Path, options: &VerifyOptions) -> Result<Report, Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::new(format!("could not read {}", path.display()), error))?;
    let report = verify(file, options)
        .map_err(|error| Failure::new(format!("{} does not verify", path.display()), error))?;
    let mut lines = vec![format!(
        "{} verifies: {} records, {} bytes",
        path.display(),
        report.records,
        report.bytes
    )];
    if let (Some(first), Some(last)) = (&report.first_time, &report.last_time) {
        lines.push(format!("  from {first} to {last}"));
    }
    if report.repairs + report.recoveries > 0 {
        let (crashes, writes) = (report.repairs, report.recoveries);
        lines.push(format!(
            "  repaired {crashes} times after a crash, {writes} times after a failed write"
        ));
    }
    lines.push(format!("  head {}", report.head));
    let json = json!({
        "ok": true, "records": report.records, "bytes": report.bytes, "first_time": report.first_time,
        "last_time": report.last_time, "head": report.head.to_string(), "repairs": report.repairs,
        "recoveries": report.recoveries, "is_keyed": report.is_keyed,
    });
    Ok(Report::new(lines.join("\n"), json))
}
