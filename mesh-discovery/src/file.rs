//! Services in a file that is watched: a list of places, in YAML or JSON.
//!
//! Choose it where something else writes the file: a configuration management, a `ConfigMap`, a script that asks an inventory.
//! For a list that a person writes once, [`StaticSource`](crate::StaticSource) does.
//!
//! # The file
//!
//! A list of what [`StaticEntry`](crate::StaticEntry) describes, in YAML (`.yaml`, `.yml`) or JSON (`.json`):
//!
//! ```yaml
//! - { id: order-service, host: 10.0.0.7, port: 50051 }
//! - id: order-service
//!   host: 10.0.0.8
//!   port: 50051
//!   weight: 3
//!   zone: b
//! ```
//!
//! | key | becomes |
//! |---|---|
//! | `id` | the service |
//! | `host`, `port` | the same of the endpoint |
//! | `instance` | its `id`; `host:port` where there is none |
//! | `weight`, `zone`, `version`, `tags`, `spiffe_id`, `public_key_fingerprint` | the same of the endpoint |
//!
//! It is taken whole or not at all. While it is not there, can't be read or has a mistake, the last good list stays, marked
//! stale, and the report says why, with line, column and key. An empty file is a mistake, for that is what a file is while
//! it is written over; `[]` says that there is nothing.
//!
//! # When it is read
//!
//! Once it changed and was then left alone for 100 ms: written over, renamed into place, or behind a link that is pointed
//! elsewhere, as Kubernetes does with `..data`. And every 10 s, for network file systems tell nobody of changes.
//!
//! # Bounds
//!
//! [`Config::max_bytes`]; 100,000 endpoints, 10,000 services, 500,000 values. Aliases and tags of YAML are refused.
//!
//! # Sources
//!
//! YAML 1.2.2, chapter 10 (core schema); RFC 8259; inotify(7).

mod json;
mod read;
mod tree;
mod watch;
mod yaml;

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::name::ServiceName;
use crate::registry::Driver;
use crate::registry::Registry;
use crate::registry::RegistryConfig;
use crate::registry::Reporter;
use crate::registry::Want;
use crate::registry::Wants;

pub use self::watch::FileWatch;

use self::read::Format;
use self::read::Seen;

/// Which file, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The file; its name ends in `.yaml`, `.yml` or `.json`.
    pub path: PathBuf,
    /// The largest file that is read. Default 16 MiB.
    pub max_bytes: u64,
    /// How often it is looked at although nothing is known to have changed. Default 10 s, at least 100 ms.
    pub look_every: Duration,
}

impl Config {
    /// The services in `path`, all else default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 16 << 20,
            look_every: Duration::from_secs(10),
        }
    }
}

/// A source of what a file says. Reads nothing: the driver does.
///
/// # Errors
///
/// [`Error::Format`] and [`Error::Config`].
pub fn source(config: Config, registry: RegistryConfig) -> Result<(Registry, Driver), Error> {
    let format = Format::of(&config.path)?;
    if config.look_every < LEAST_LOOK {
        return Err(Error::Config {
            field: "time between two looks",
            reason: "use at least 100 ms",
        });
    }
    if config.max_bytes == 0 {
        return Err(Error::Config {
            field: "largest size",
            reason: "use at least one byte",
        });
    }
    let (registry, wants) = Registry::new(registry);
    let driver = Driver::new(follow(config, format, wants));
    Ok((registry, driver))
}

/// Reads the file whenever it may have changed, and tells who watches.
async fn follow(config: Config, format: Format, mut wants: Wants) {
    let mut watch = FileWatch::new(vec![config.path.clone()], Vec::new()).with_settle(SETTLE);
    let mut reporters: HashMap<ServiceName, Reporter> = HashMap::new();
    let mut seen = Seen::default();
    let mut look = tokio::time::interval(config.look_every);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            want = wants.next() => {
                match want {
                    Want::Begin(reporter) => {
                        seen.tell(&reporter);
                        reporters.insert(reporter.service().clone(), reporter);
                    }
                    Want::End(service) => drop(reporters.remove(&service)),
                }
                continue;
            }
            // The first tick is at once.
            _ = look.tick() => {}
            () = watch.changed() => {}
        }
        let has_changed = seen.look(&config, format).await;
        for reporter in reporters.values() {
            if has_changed {
                seen.tell(reporter);
            } else {
                seen.confirm(reporter);
            }
        }
    }
}

/// Why a file gives no list.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting can't be used.
    #[error("the {field} of a file source is unusable: {reason}")]
    Config {
        /// Which one.
        field: &'static str,
        /// What a usable value looks like.
        reason: &'static str,
    },
    /// The name does not say what is in it.
    #[error("{} is neither YAML nor JSON; let its name end in .yaml, .yml or .json", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// It is not there or can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::sync::Arc<std::io::Error>,
    },
    /// It is not read in time, as from a network file system whose server is gone.
    #[error("{} is not read within {limit:?}", path.display())]
    Slow {
        /// The file.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// It is a folder, a pipe or a device.
    #[error("{} is no file", path.display())]
    NoFile {
        /// What it was taken for.
        path: PathBuf,
    },
    /// It is too large.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// There is nothing in it, as while it is written.
    #[error("{} is empty; write [] where there are no services", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is wrong.
    #[error("{}, line {line}, column {column}{}: {problem}", path.display(), keyed(key.as_deref()))]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The key whose value it is.
        key: Option<String>,
        /// What is wrong.
        problem: String,
    },
    /// The list as a whole can't be used.
    #[error("{} can't be used", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        source: crate::error::Error,
    },
}

fn keyed(key: Option<&str>) -> String {
    key.map(|key| format!(", key `{key}`")).unwrap_or_default()
}

impl Error {
    fn content(path: &Path, flaw: tree::Flaw) -> Self {
        let place = flaw.place.unwrap_or(tree::Place { line: 1, column: 1 });
        let shorten = |text: String| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(LONGEST_SHOWN)
                .collect()
        };
        Self::Content {
            path: path.to_owned(),
            line: place.line,
            column: place.column,
            key: flaw.key.map(shorten),
            problem: shorten(flaw.problem),
        }
    }
}

/// One file is replaced at once or written in one go; changes are to be seen within half a second.
const SETTLE: Duration = Duration::from_millis(100);
const LEAST_LOOK: Duration = Duration::from_millis(100);
/// What is quoted of a file in an error.
const LONGEST_SHOWN: usize = 200;
