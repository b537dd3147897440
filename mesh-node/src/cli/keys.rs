//! `mesh-node keys`: RSA identity keys.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use clap::Args;
use clap::Subcommand;
use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::Fingerprint;
use mesh_crypto::KeyStore;
use mesh_crypto::RsaBits;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine;
use mesh_crypto::keystore;
use mesh_crypto::keystore::KeyInfo;
use mesh_crypto::keystore::KeyState;
use mesh_crypto::keystore::OsFileSystem;
use mesh_crypto::pem;
use serde_json::Value;
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
        #[command(flatten)]
        store: Store,
        /// Size: 2048, 3072 or 4096 bits.
        #[arg(long, default_value = "4096")]
        bits: usize,
    },
    /// Lists the keys, oldest first, and what each is good for.
    List {
        #[command(flatten)]
        store: Store,
        /// How long a key still opens after a newer one took its place.
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Makes a newer key, and deletes those that were replaced longer than the overlap ago.
    Rotate {
        #[command(flatten)]
        store: Store,
        /// Size: 2048, 3072 or 4096 bits.
        #[arg(long, default_value = "4096")]
        bits: usize,
        /// How long a key still opens after a newer one took its place.
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Prints the public half of the newest key, as PEM.
    ExportPublic {
        #[command(flatten)]
        store: Store,
        /// Another key than the newest, by its fingerprint.
        #[arg(long, value_name = "FINGERPRINT")]
        key: Option<Fingerprint>,
        /// Prints the fingerprint alone.
        #[arg(long)]
        fingerprint: bool,
    },
}

/// Which keys.
#[derive(Args, Debug)]
pub(super) struct Store {
    /// Folder of the keys.
    #[arg(long, default_value = "keys")]
    dir: PathBuf,
    /// File with the passphrase that encrypts the keys on disk; nobody but its owner may have rights to it.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Report, Failure> {
    match command {
        Command::Generate { store, bits } => generate(store, *bits, context),
        Command::List { store, overlap } => print(store, *overlap, context),
        Command::Rotate {
            store,
            bits,
            overlap,
        } => rotate(store, *bits, *overlap, context),
        Command::ExportPublic {
            store,
            key,
            fingerprint,
        } => export_public(store, *key, *fingerprint),
    }
}

fn generate(store: &Store, bits: usize, context: &Context) -> Result<Report, Failure> {
    let bits = size(bits)?;
    if let Some(parent) = store
        .dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        files::make_dir(parent, Access::Public)?;
    }
    let (engine, keys) = (engine::aws_lc(), store.open()?);
    store.refuse_mixture(&*engine, &keys)?;
    let key = keys
        .generate(&*engine, bits, context.unix_seconds())
        .map_err(|error| store.failed("could not make a key in", error))?;
    let fingerprint = key.public().fingerprint().to_string();
    Ok(Report::new(
        made(store, bits, &fingerprint),
        json!({ "ok": true, "dir": store.dir, "bits": bits.bits(), "fingerprint": fingerprint }),
    ))
}

fn rotate(
    store: &Store,
    bits: usize,
    overlap: Duration,
    context: &Context,
) -> Result<Report, Failure> {
    let bits = size(bits)?;
    let (engine, now) = (engine::aws_lc(), context.unix_seconds());
    let keys = store.open_existing()?;
    store.refuse_mixture(&*engine, &keys)?;
    let key = keys
        .rotate(&*engine, bits, now)
        .map_err(|error| store.failed("could not make a key in", error))?;
    let retired = keys
        .retire(&*engine, overlap, now)
        .map_err(|error| store.failed("made a key, but could not delete old ones in", error))?;
    let retired: Vec<String> = retired.iter().map(Fingerprint::to_string).collect();
    let fingerprint = key.public().fingerprint().to_string();
    let mut text = made(store, bits, &fingerprint);
    for old in &retired {
        text.push_str("\ndeleted ");
        text.push_str(old);
    }
    Ok(Report::new(
        text,
        json!({
            "ok": true, "dir": store.dir, "bits": bits.bits(), "fingerprint": fingerprint, "deleted": retired,
        }),
    ))
}

fn print(store: &Store, overlap: Duration, context: &Context) -> Result<Report, Failure> {
    let keys = store
        .open_existing()?
        .list(&*engine::aws_lc())
        .map_err(|error| store.failed("could not list the keys in", error))?;
    let rows: Vec<(String, Value)> = keys
        .iter()
        .map(|key| row(key, key.state(overlap, context.unix_seconds())))
        .collect();
    let (lines, json): (Vec<String>, Vec<Value>) = rows.into_iter().unzip();
    let text = if lines.is_empty() {
        format!("no keys in {}", store.dir.display())
    } else {
        lines.join("\n")
    };
    Ok(Report::new(text, json!({ "ok": true, "keys": json })))
}

fn row(key: &KeyInfo, state: KeyState) -> (String, Value) {
    let (name, until) = match state {
        KeyState::Current => ("current", None),
        KeyState::Overlap { until } => ("overlap", Some(until)),
        KeyState::Over { since } => ("over", Some(since)),
        _ => ("unknown", None),
    };
    let until = until.map(date);
    let said = match (&until, state) {
        (Some(until), KeyState::Over { .. }) => format!("over since {until}"),
        (Some(until), _) => format!("{name} until {until}"),
        (None, _) => name.to_owned(),
    };
    let (fingerprint, bits) = (key.fingerprint.to_string(), key.bits.bits());
    let created = date(key.created);
    (
        format!("{fingerprint}  {bits} bits  made {created}  {said}"),
        json!({
            "fingerprint": fingerprint, "bits": bits, "created": created, "state": name, "until": until,
        }),
    )
}

fn export_public(
    store: &Store,
    key: Option<Fingerprint>,
    fingerprint_only: bool,
) -> Result<Report, Failure> {
    let (keys, engine) = (store.open_existing()?, engine::aws_lc());
    let found = match key {
        Some(fingerprint) => keys.find(&*engine, fingerprint),
        None => keys.newest(&*engine),
    };
    let found = found
        .map_err(|error| store.failed("could not read the key in", error))?
        .ok_or_else(|| {
            let which = key.map_or_else(|| "no key".to_owned(), |key| format!("no key {key}"));
            let dir = store.dir.display();
            Failure::plain(format!(
                "there is {which} in {dir}; `mesh-node keys list` says which there are"
            ))
        })?;
    let public = found.public();
    let fingerprint = public.fingerprint().to_string();
    let pem = pem::encode_public(public);
    let json = json!({
        "ok": true, "fingerprint": fingerprint, "bits": public.bits().bits(), "pem": pem,
    });
    let text = if fingerprint_only { fingerprint } else { pem };
    Ok(Report::new(text, json))
}

/// The keys in `dir`, oldest first; each file is read and checked.
pub(super) fn list(dir: &Path) -> Result<Vec<KeyInfo>, Failure> {
    let store = Store {
        dir: dir.to_path_buf(),
        passphrase_file: None,
    };
    store.open()?.list(&*engine::aws_lc()).map_err(|error| {
        let message = format!("could not list the keys in {}", dir.display());
        Failure::new(message, error)
    })
}

impl Store {
    fn open_existing(&self) -> Result<KeyStore, Failure> {
        if self.dir.exists() {
            self.open()
        } else {
            Err(Failure::plain(format!(
                "there is no folder {}; `mesh-node keys generate` makes it, with a key",
                self.dir.display()
            )))
        }
    }

    fn open(&self) -> Result<KeyStore, Failure> {
        let files = Arc::new(OsFileSystem::new());
        // Before a folder is made for nothing.
        let passphrase = match &self.passphrase_file {
            Some(path) => Some(
                keystore::read_passphrase(&*files, path)
                    .map_err(|error| Failure::new("could not use the passphrase file", error))?,
            ),
            None => None,
        };
        let keys = KeyStore::open(files, &self.dir)
            .map_err(|error| self.failed("could not open the keys in", error))?;
        Ok(match passphrase {
            Some(passphrase) => keys.with_passphrase(passphrase, Arc::new(SystemRandom::new())),
            None => keys,
        })
    }

    /// A passphrase that is not that of the keys, or none where there is one, must not put another kind of key beside
    /// them.
    fn refuse_mixture(&self, engine: &dyn Engine, keys: &KeyStore) -> Result<(), Failure> {
        match keys.newest(engine) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("could not read the newest key in", error)),
        }
    }

    fn failed(&self, what: &str, error: Error) -> Failure {
        match error {
            Error::Encrypted { .. } => Failure::plain(format!(
                "the keys in {} are encrypted; name the file with their passphrase: --passphrase-file FILE",
                self.dir.display()
            )),
            error => Failure::new(format!("{what} {}", self.dir.display()), error),
        }
    }
}

fn size(bits: usize) -> Result<RsaBits, Failure> {
    RsaBits::from_bits(bits).map_err(|error| Failure::misuse(error.to_string()))
}

fn made(store: &Store, bits: RsaBits, fingerprint: &str) -> String {
    let (bits, dir) = (bits.bits(), store.dir.display());
    format!("made a key of {bits} bits in {dir}\n{fingerprint}")
}

fn date(seconds: u64) -> String {
    // Until the year 9999, which is all that can be written.
    let seconds = Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + seconds).to_string()
}
