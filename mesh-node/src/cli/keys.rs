//! `mesh-node keys`: RSA identity keys.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use clap::Subcommand;
use mesh_crypto::KeyStore;
use mesh_crypto::RsaBits;
use mesh_crypto::engine;
use mesh_crypto::keystore::KeyInfo;
use mesh_crypto::keystore::OsFileSystem;
use serde_json::json;

use super::Context;
use super::files;
use super::files::Access;
use super::report::Failure;
use super::report::Report;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes a key; nodes that start from now on use it.
    Generate {
        /// Folder of the keys.
        #[arg(long, default_value = "keys")]
        dir: PathBuf,
        /// Size: 2048, 3072 or 4096 bits.
        #[arg(long, default_value = "4096")]
        bits: usize,
    },
    /// Lists the keys, oldest first.
    List {
        /// Folder of the keys.
        #[arg(long, default_value = "keys")]
        dir: PathBuf,
    },
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Report, Failure> {
    match command {
        Command::Generate { dir, bits } => {
            let bits =
                RsaBits::from_bits(*bits).map_err(|error| Failure::misuse(error.to_string()))?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                files::make_dir(parent, Access::Public)?;
            }
            let key = open(dir)?
                .generate(&*engine::aws_lc(), bits, context.unix_seconds())
                .map_err(|error| Failure::new("could not make a key", error))?;
            let fingerprint = key.public().fingerprint().to_string();
            let text = format!(
                "made a key of {} bits in {}\n{fingerprint}",
                bits.bits(),
                dir.display()
            );
            Ok(Report::new(
                text,
                json!({ "ok": true, "dir": dir, "bits": bits.bits(), "fingerprint": fingerprint }),
            ))
        }
        Command::List { dir } => {
            if !dir.exists() {
                return Err(Failure::plain(format!(
                    "there is no folder {}",
                    dir.display()
                )));
            }
            let keys = list(dir)?;
            let lines: Vec<String> = keys
                .iter()
                .map(|key| {
                    format!(
                        "{}  {} bits  made {}",
                        key.fingerprint,
                        key.bits.bits(),
                        made(key)
                    )
                })
                .collect();
            let text = if keys.is_empty() {
                format!("no keys in {}", dir.display())
            } else {
                lines.join("\n")
            };
            let json = keys.iter().map(|key| {
                json!({ "fingerprint": key.fingerprint.to_string(), "bits": key.bits.bits(), "created": made(key) })
            });
            Ok(Report::new(
                text,
                json!({ "ok": true, "keys": json.collect::<Vec<_>>() }),
            ))
        }
    }
}

/// The keys in `dir`, oldest first; each file is read and checked.
pub(super) fn list(dir: &Path) -> Result<Vec<KeyInfo>, Failure> {
    open(dir)?.list(&*engine::aws_lc()).map_err(|error| {
        Failure::new(
            format!("could not list the keys in {}", dir.display()),
            error,
        )
    })
}

fn open(dir: &Path) -> Result<KeyStore, Failure> {
    KeyStore::open(Arc::new(OsFileSystem::new()), dir).map_err(|error| {
        Failure::new(
            format!("could not open the keys in {}", dir.display()),
            error,
        )
    })
}

fn made(key: &KeyInfo) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(key.created))
        .to_string()
}
