//! `mesh-node ca token`: lets one node in.

use std::path::PathBuf;
use std::time::Duration;

use mesh_auth::ca::join::Grant;
use mesh_auth::ca::join::JoinToken;
use serde_json::json;

use crate::ca_service::grants::Grants;
use crate::cli::Context;
use crate::cli::report::Failure;
use crate::cli::report::Report;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The service that whoever holds the token becomes, or a SPIFFE id of the authority's trust domain.
    #[arg(long, value_name = "SERVICE")]
    id: String,
    /// Folder of the authority.
    #[arg(long, default_value = "ca")]
    dir: PathBuf,
    /// How long the token is good.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    if args.ttl.as_secs() == 0 || args.ttl > LONGEST {
        return Err(Failure::misuse("--ttl is to be between a second and a day"));
    }
    let roots = super::read(&args.dir)?;
    let id = super::workload(&args.id, roots.trust_domain())?;
    if id.trust_domain() != roots.trust_domain() {
        let domain = roots.trust_domain();
        return Err(Failure::misuse(format!("{id} is not of {domain}")));
    }
    let failed = |error| Failure::new("could not make a join token", error);
    let grant = Grant::new(id.clone(), args.ttl, context.now)
        .map_err(|error| Failure::new("could not make a join token", error).into_misuse())?;
    let token = JoinToken::generate()
        .map_err(|error| Failure::new("could not make a join token", error))?;
    Grants::new(&args.dir)
        .add(&token, &grant, context.now)
        .map_err(failed)?;
    // The token alone, so that it can go straight into a file that nobody else reads.
    Ok(Report::new(
        token.expose(),
        json!({ "ok": true, "token": token.expose(), "spiffe_id": id.as_str(), "expires": grant.expires }),
    ))
}

/// A token is for joining now.
const LONGEST: Duration = Duration::from_hours(24);
