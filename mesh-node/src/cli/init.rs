//! `mesh-node init`: a configuration that runs at once.

use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use mesh_crypto::Random;
use mesh_crypto::SystemRandom;
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use super::ca;
use super::files;
use super::files::Access;
use super::report::Failure;
use super::report::Report;
use crate::config::Document;
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder to write to.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Name of the service.
    #[arg(long, default_value = "my-service")]
    service: String,
    /// Trust domain.
    #[arg(long, default_value = "example.org", value_name = "DOMAIN")]
    trust_domain: String,
    /// Address of the application.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    app: String,
    /// Replaces what is there, the certificate authority and the token secret included.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Report, Failure> {
    let Args {
        service,
        trust_domain,
        app,
        force,
        ..
    } = args;
    let dir = args.dir.strip_prefix(".").unwrap_or(&args.dir);
    let (config, secret, ca_dir) = (
        dir.join("mesh.yaml"),
        dir.join("jwt.secret"),
        dir.join("ca"),
    );
    files::refuse_overwrite(
        &[
            &config,
            &secret,
            &ca_dir.join("ca.crt"),
            &ca_dir.join("ca.key"),
        ],
        *force,
    )?;

    // All that can be refused is refused before the first file is written.
    let text = TEMPLATE
        .replace("{service}", service)
        .replace("{trust_domain}", trust_domain)
        .replace("{app}", app);
    let shape = text.replace("    secret_file: jwt.secret", "    secret: \"${SECRET}\"");
    let fresh = random_secret()?;
    let stand_in = Environment::from([("SECRET".to_owned(), fresh.trim().to_owned())]);
    Document::parse(&shape, &config, &stand_in)?.config()?;
    let authority = ca::generate(trust_domain, CA_VALIDITY, context)?;

    files::make_dir(dir, Access::Public)?;
    ca::write(&authority, &ca_dir, *force)?;
    files::write(&secret, &fresh, Access::Private)?;
    files::write(&config, &text, Access::Public)?;
    let ignore = dir.join(".gitignore");
    if !ignore.exists() {
        files::write(
            &ignore,
            "/ca/ca.key\n/jwt.secret\n/keys/\n/logs/\n",
            Access::Public,
        )?;
    }
    super::check::run(&config, context)?;
    Ok(report(&config, &secret, &ca_dir))
}

fn report(config: &Path, secret: &Path, ca_dir: &Path) -> Report {
    let next = format!("mesh-node run -c {}", config.display());
    let text = format!(
        "made {}, a certificate authority in {} and a token secret in {}\n\
         other nodes of this mesh need the same {} and {}\nnext: {next}",
        config.display(),
        ca_dir.display(),
        secret.display(),
        ca_dir.display(),
        secret.display(),
    );
    let json = json!({ "ok": true, "config": config, "ca_dir": ca_dir, "secret_file": secret, "next": next });
    Report::new(text, json)
}

/// 32 random bytes in hex, and the end of the line.
fn random_secret() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|error| Failure::new("could not make a secret", error))?;
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in bytes.iter() {
        write!(text, "{byte:02x}")
            .map_err(|error| Failure::new("could not make a secret", error))?;
    }
    text.push('\n');
    Ok(text)
}

const TEMPLATE: &str = include_str!("../../config/init.yaml");
/// Ten years: replacing the root touches every node.
const CA_VALIDITY: Duration = Duration::from_hours(3650 * 24);
