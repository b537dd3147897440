//! `mesh-node ca`: the built-in certificate authority.

mod rotate;
mod serve;
mod token;

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use mesh_auth::ca::Authority;
use mesh_auth::ca::roots::RootSet;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::spiffe::TrustDomain;
use serde_json::json;

use super::Context;
use super::files;
use super::files::Access;
use super::report::Failure;
use super::report::Report;
use crate::ca_service::folder::CERTIFICATES;
use crate::ca_service::folder::CaFolder;
use crate::ca_service::folder::FolderError;
use crate::ca_service::folder::KEYS;
use crate::ca_service::folder::Locked;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes a certificate authority: ca.crt, which every node trusts, and ca.key, which signs.
    Init {
        /// The trust domain that it speaks for, such as example.org.
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: String,
        /// Folder to write to.
        #[arg(long, default_value = "ca")]
        dir: PathBuf,
        /// How long the authority is valid.
        #[arg(long, default_value = "3650days", value_parser = humantime::parse_duration)]
        validity: Duration,
        /// Replaces an authority that is there; every certificate that it issued is then worthless.
        #[arg(long)]
        force: bool,
    },
    /// Issues a certificate to a service: SERVICE.crt, SERVICE.key, and ca.crt beside them.
    Issue {
        /// The service, or a SPIFFE id of the authority's trust domain.
        service: String,
        /// Folder of the authority.
        #[arg(long, default_value = "ca")]
        dir: PathBuf,
        /// Folder to write to.
        #[arg(long, default_value = "certs")]
        out: PathBuf,
        /// How long the certificate is valid.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        lifetime: Duration,
        /// A DNS name, for clients outside the mesh; may be repeated.
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        /// An IP address, for clients outside the mesh; may be repeated.
        #[arg(long, value_name = "ADDRESS")]
        ip: Vec<IpAddr>,
    },
    /// Serves the authority: nodes with a join token or a certificate get certificates here, and the trust bundle.
    Serve(serve::Args),
    /// Makes a join token, with which one node gets its first certificate from a served authority.
    Token(token::Args),
    /// Replaces the root, in three steps between which nothing breaks: --prepare, --activate, --finish.
    Rotate(rotate::Args),
    /// Shows the roots, what each does, and the join tokens that are out.
    Status {
        /// Folder of the authority.
        #[arg(long, default_value = "ca")]
        dir: PathBuf,
    },
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Report, Failure> {
    match command {
        Command::Init {
            trust_domain,
            dir,
            validity,
            force,
        } => {
            let authority = generate(trust_domain, *validity, context)?;
            write(&authority, dir, *force)?;
            let until = humantime::format_rfc3339_seconds(authority.not_after()).to_string();
            let text = format!(
                "made {0}/ca.crt and {0}/ca.key for {1}, valid until {until}\nnext: mesh-node ca issue SERVICE --dir {0}",
                dir.display(),
                authority.trust_domain(),
            );
            let json =
                json!({ "ok": true, "dir": dir, "trust_domain": trust_domain, "not_after": until });
            Ok(Report::new(text, json))
        }
        Command::Issue {
            service,
            dir,
            out,
            lifetime,
            dns,
            ip,
        } => {
            let names: Vec<String> = dns
                .iter()
                .cloned()
                .chain(ip.iter().map(IpAddr::to_string))
                .collect();
            issue(service, (dir, out), *lifetime, &names, context)
        }
        Command::Serve(args) => serve::run(args, context),
        Command::Token(args) => token::run(args, context),
        Command::Rotate(args) => rotate::run(args, context),
        Command::Status { dir } => rotate::status(dir, context),
    }
}

/// A new authority.
pub(super) fn generate(
    trust_domain: &str,
    validity: Duration,
    context: &Context,
) -> Result<Authority, Failure> {
    let domain = TrustDomain::parse(trust_domain).map_err(|error| {
        Failure::new(format!("{trust_domain:?} is not a trust domain"), error).into_misuse()
    })?;
    Authority::generate(&domain, validity, context.now)
        .map_err(|error| Failure::new("could not make the certificate authority", error))
}

/// Writes an authority's certificate and key into `dir`.
pub(super) fn write(authority: &Authority, dir: &Path, force: bool) -> Result<(), Failure> {
    let (certificate, key) = (dir.join(CERTIFICATES), dir.join(KEYS));
    files::refuse_overwrite(&[&certificate, &key], force)?;
    files::make_dir(dir, Access::Private)?;
    files::write(&key, &authority.key_pem(), Access::Private)?;
    files::write(&certificate, authority.certificate_pem(), Access::Public)?;
    let begun = CaFolder::new(dir).lock().and_then(|ca| ca.begin(authority));
    begun.map_err(|error| Failure::new("could not make the certificate authority", error))
}

/// The roots of the authority in `dir`.
pub(super) fn read(dir: &Path) -> Result<RootSet, Failure> {
    lock(dir)?.roots().map_err(unusable)
}

/// The authority in `dir`, which nobody else changes in the meantime.
fn lock(dir: &Path) -> Result<Locked, Failure> {
    CaFolder::new(dir).lock().map_err(unusable)
}

fn unusable(error: FolderError) -> Failure {
    Failure::new("the certificate authority can't be used", error)
}

/// The id of a service of `trust_domain`, or one that is written out.
fn workload(service: &str, trust_domain: &TrustDomain) -> Result<SpiffeId, Failure> {
    let id = if service.contains("://") {
        SpiffeId::parse(service)
    } else {
        SpiffeId::for_service(trust_domain, service)
    };
    id.map_err(|error| Failure::new(format!("{service:?} is no service"), error).into_misuse())
}

fn issue(
    service: &str,
    (dir, out): (&Path, &Path),
    lifetime: Duration,
    names: &[String],
    context: &Context,
) -> Result<Report, Failure> {
    let ca = lock(dir)?;
    let roots = ca.roots().map_err(unusable)?;
    let authority = roots.signer();
    let id = workload(service, authority.trust_domain())?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued = authority
        .issue(&id, lifetime, context.now, &names)
        .map_err(|error| Failure::new(format!("could not issue a certificate to {id}"), error))?;
    // As long as it lives its root is not to be forgotten.
    ca.promise(&authority.facts().fingerprint, issued.not_after)
        .map_err(unusable)?;
    drop(ca);

    files::make_dir(out, Access::Public)?;
    let file_name = id.path().trim_start_matches('/').replace('/', "-");
    let (certificate, key, root) = (
        out.join(format!("{file_name}.crt")),
        out.join(format!("{file_name}.key")),
        out.join(CERTIFICATES),
    );
    files::write(&key, &issued.key_pem, Access::Private)?;
    files::write(&certificate, &issued.certificate_pem, Access::Public)?;
    files::write(&root, &roots.certificates_pem(), Access::Public)?;
    let until = humantime::format_rfc3339_seconds(issued.not_after).to_string();
    let text = format!(
        "issued {} to {id}, valid until {until}\nidentity:\n  trust_domain: {}\n  source: files\n  cert_file: {}\n  \
         key_file: {}\n  ca_file: {}",
        certificate.display(),
        authority.trust_domain(),
        certificate.display(),
        key.display(),
        root.display(),
    );
    let json = json!({
        "ok": true, "spiffe_id": id.as_str(), "cert_file": certificate, "key_file": key, "ca_file": root,
        "not_after": until,
    });
    Ok(Report::new(text, json))
}
