//! `mesh-node cert`: certificates, for people to look at.

use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;
use mesh_auth::svid;
use mesh_auth::svid::CertificateFacts;
use mesh_transport::tls::certificates;
use serde_json::Value;
use serde_json::json;

use super::Context;
use super::files;
use super::report::Failure;
use super::report::Report;
use crate::stack::outbound::chain;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows what each certificate of a PEM file says, and which rule of SPIFFE keeps it from being used. Ends with 1 where
    /// one is of no use now.
    Inspect {
        /// The file.
        file: PathBuf,
    },
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Report, Failure> {
    let Command::Inspect { file } = command;
    inspect(file, context.now)
}

fn inspect(file: &Path, now: SystemTime) -> Result<Report, Failure> {
    let unreadable = || format!("{} can't be read as certificates", file.display());
    let text = files::read(file)?;
    let read = certificates(text.as_bytes()).map_err(|error| Failure::new(unreadable(), error))?;
    let facts: Vec<CertificateFacts> = read
        .iter()
        .map(|certificate| svid::inspect(certificate))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(unreadable(), error))?;
    let verdicts: Vec<_> = facts.iter().map(|facts| trouble(facts, now)).collect();
    let shown: Vec<_> = facts
        .iter()
        .zip(verdicts.iter().map(Option::as_deref))
        .collect();
    let texts: Vec<_> = shown
        .iter()
        .map(|(facts, why)| as_text(facts, *why))
        .collect();
    let pages: Vec<_> = shown
        .iter()
        .map(|(facts, why)| as_json(facts, *why))
        .collect();
    let is_good = verdicts.iter().all(Option::is_none);
    let report = Report::new(
        texts.join("\n"),
        json!({ "ok": is_good, "certificates": pages }),
    );
    Ok(report.that_holds(is_good))
}

/// Why a certificate is of no use now.
fn trouble(facts: &CertificateFacts, now: SystemTime) -> Option<String> {
    if let Some(violation) = &facts.violation {
        return Some(chain(violation));
    }
    if now < facts.not_before {
        return Some("it is not valid yet".to_owned());
    }
    (now > facts.not_after).then(|| "it has ended".to_owned())
}

fn as_text(facts: &CertificateFacts, trouble: Option<&str>) -> String {
    let mut lines = vec![format!(
        "{}  {}",
        if facts.is_ca {
            "authority"
        } else {
            "workload "
        },
        facts.uris.join(", ")
    )];
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("  {name:<11} {value}"));
        }
    };
    let addresses: Vec<_> = facts.ip_addresses.iter().map(ToString::to_string).collect();
    line(
        "other names",
        &[&facts.dns_names[..], &addresses].concat().join(", "),
    );
    line(
        "valid",
        &format!("{} to {}", time(facts.not_before), time(facts.not_after)),
    );
    line("subject", &facts.subject);
    line("issuer", &facts.issuer);
    line("key", &facts.key);
    line("serial", &facts.serial);
    line("sha-256", &facts.fingerprint);
    line(
        "verdict",
        &trouble.map_or_else(|| "good".to_owned(), |why| format!("no use: {why}")),
    );
    lines.join("\n")
}

fn as_json(facts: &CertificateFacts, trouble: Option<&str>) -> Value {
    json!({
        "spiffe_id": facts.spiffe_id.as_ref().map(mesh_auth::spiffe::SpiffeId::as_str),
        "uris": facts.uris,
        "dns_names": facts.dns_names,
        "ip_addresses": facts.ip_addresses,
        "is_ca": facts.is_ca,
        "not_before": time(facts.not_before),
        "not_after": time(facts.not_after),
        "subject": facts.subject,
        "issuer": facts.issuer,
        "key": facts.key,
        "serial": facts.serial,
        "sha256": facts.fingerprint,
        "trouble": trouble,
    })
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
