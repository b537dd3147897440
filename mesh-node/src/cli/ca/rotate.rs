//! `mesh-node ca rotate` and `ca status`: one root takes the place of another.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::ca::join::Grant;
use mesh_auth::svid::CertificateFacts;
use serde_json::Value;
use serde_json::json;

use super::lock;
use super::unusable;
use crate::ca_service::folder::Role;
use crate::ca_service::grants::Grants;
use crate::cli::Context;
use crate::cli::report::Failure;
use crate::cli::report::Report;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    step: Step,
    /// Folder of the authority.
    #[arg(long, default_value = "ca")]
    dir: PathBuf,
    /// With --prepare: how long the new root is valid.
    #[arg(long, default_value = "3650days", value_parser = humantime::parse_duration)]
    validity: Duration,
    /// With --activate: without waiting until nodes have heard of the new root. With --finish: without waiting until
    /// what the old root signed has ended.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Step {
    /// Makes a new root, which is trusted from now on; the old one signs.
    #[arg(long)]
    prepare: bool,
    /// The new root signs; the old one stays trusted.
    #[arg(long)]
    activate: bool,
    /// The old root is trusted no more.
    #[arg(long)]
    finish: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let ca = lock(&args.dir)?;
    let dir = args.dir.display();
    let next = if args.step.prepare {
        let roots = ca.roots().map_err(unusable)?;
        let next = Authority::generate(roots.trust_domain(), args.validity, context.now)
            .map_err(|error| Failure::new("could not make a new root", error))?;
        ca.prepare(next, context.now).map_err(unusable)?;
        format!(
            "nodes that ask the served authority hear of the new root by themselves; others need {dir}/ca.crt anew\nnext, in \
             five minutes: mesh-node ca rotate --activate --dir {dir}"
        )
    } else if args.step.activate {
        ca.activate(args.force, context.now).map_err(unusable)?;
        format!(
            "the new root signs\nnext, when what the old one signed has ended: mesh-node ca rotate --finish --dir {dir}"
        )
    } else {
        let gone = ca.finish(args.force, context.now).map_err(unusable)?;
        format!("trusted no more: {}", gone.join(", "))
    };
    drop(ca);
    let status = status(&args.dir, context)?;
    Ok(Report {
        text: format!("{}\n{next}", status.text),
        ..status
    })
}

pub(super) fn status(dir: &Path, context: &Context) -> Result<Report, Failure> {
    let ca = lock(dir)?;
    let (roots, state) = (ca.roots().map_err(unusable)?, ca.state().map_err(unusable)?);
    drop(ca);
    let grants = Grants::new(dir)
        .list(context.now)
        .map_err(|error| Failure::new("could not read the join tokens", error))?;
    let (mut text, mut rows) = (String::new(), Vec::new());
    let others = roots.others().iter().map(|root| &root.facts);
    for facts in std::iter::once(roots.signer().facts()).chain(others) {
        let role = state.role(&roots, &facts.fingerprint);
        let last = state.last_leaf(&roots, &facts.fingerprint);
        describe(&mut text, facts, role, last);
        rows.push(json!({
            "fingerprint": facts.fingerprint,
            "role": role,
            "until": shown(facts.not_after),
            "last_certificate_until": shown(last),
        }));
    }
    let (used, out): (Vec<_>, Vec<_>) = grants.iter().partition(|grant| grant.used_by.is_some());
    for (grant, what) in out
        .iter()
        .map(|grant| (grant, "unused"))
        .chain(used.iter().map(|grant| (grant, "used")))
    {
        let until = shown(SystemTime::UNIX_EPOCH + Duration::from_secs(grant.expires));
        line(
            &mut text,
            &format!("join token  {what}, {} until {until}", grant.id),
        );
    }
    let json = json!({
        "ok": true,
        "trust_domain": roots.trust_domain().as_str(),
        "roots": rows,
        "join_tokens": grants.iter().map(token).collect::<Vec<_>>(),
    });
    Ok(Report::new(text, json))
}

fn describe(text: &mut String, facts: &CertificateFacts, role: Role, last: SystemTime) {
    let what = match role {
        Role::Signs => "signs".to_owned(),
        Role::Next => "trusted, will sign".to_owned(),
        Role::Former => format!("trusted, what it signed ends at {}", shown(last)),
    };
    let name = facts.fingerprint.get(..16).unwrap_or_default();
    let until = shown(facts.not_after);
    line(text, &format!("root {name}  {what}; valid until {until}"));
}

fn token(grant: &Grant) -> Value {
    json!({ "spiffe_id": grant.id.as_str(), "expires": grant.expires, "used": grant.used_by.is_some() })
}

fn shown(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
