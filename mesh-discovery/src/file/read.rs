//! From a file to the endpoints of its services.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs::File;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize as _;
use tokio::task::JoinHandle;

use super::Config;
use super::Error;
use super::json;
use super::tree::Flaw;
use super::tree::Kind;
use super::tree::Node;
use super::tree::Place;
use super::yaml;
use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::error::Error as ListError;
use crate::fixed::MAX_ENDPOINTS;
use crate::fixed::MAX_SERVICES;
use crate::fixed::StaticEntry;
use crate::name::ServiceName;
use crate::registry::Reporter;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Ok(Self::Json),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            _ => Err(Error::Format {
                path: path.to_owned(),
            }),
        }
    }
}

/// The endpoints of each service, in the order of the file.
pub(super) type Lists = BTreeMap<ServiceName, Vec<Endpoint>>;

/// What is known of the file.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The last good lists.
    lists: Option<Arc<Lists>>,
    /// What is wrong with the file now.
    error: Option<Error>,
    /// Of the content that was read last, good or not; none when it could not be read.
    digest: Option<u64>,
    hasher: RandomState,
    /// A look that has not ended.
    reading: Option<JoinHandle<Look>>,
}

/// The digest of the content, and what it says unless it is as before.
type Look = (Option<u64>, Option<Result<Lists, Error>>);

impl Seen {
    /// Reads the file; true when what is known may have changed.
    pub(super) async fn look(&mut self, config: &Config, format: Format) -> bool {
        let reading = self.reading.get_or_insert_with(|| {
            let (config, hasher, before) = (config.clone(), self.hasher.clone(), self.digest);
            tokio::task::spawn_blocking(move || look(&config, format, &hasher, before))
        });
        // A network file system may take its time, and for ever.
        let Ok(ended) = tokio::time::timeout(PATIENCE, reading).await else {
            self.error = Some(Error::Slow {
                path: config.path.clone(),
                limit: PATIENCE,
            });
            // Whatever it holds when it can be read is news.
            self.digest = None;
            return true;
        };
        self.reading = None;
        let (digest, parsed) = match ended {
            Ok(looked) => looked,
            // The thread that read it has panicked, or its runtime ends.
            Err(error) => {
                self.error = Some(Error::Read {
                    path: config.path.clone(),
                    source: Arc::new(io::Error::other(error)),
                });
                self.digest = None;
                return true;
            }
        };
        let is_late = matches!(self.error, Some(Error::Slow { .. }));
        self.digest = digest.filter(|_| parsed.is_some() || !is_late);
        match parsed {
            None => false,
            Some(Ok(lists)) => {
                self.lists = Some(Arc::new(lists));
                self.error = None;
                true
            }
            Some(Err(error)) => {
                self.error = Some(error);
                true
            }
        }
    }

    /// Tells what is known.
    pub(super) fn tell(&self, reporter: &Reporter) {
        if let (Some(lists), None) = (&self.lists, &self.error) {
            reporter.found(lists.get(reporter.service()).cloned().unwrap_or_default());
        }
        self.fail(reporter);
    }

    /// Tells that it is as it was.
    pub(super) fn confirm(&self, reporter: &Reporter) {
        if self.error.is_none() && self.lists.is_some() {
            reporter.confirmed();
        }
        self.fail(reporter);
    }

    fn fail(&self, reporter: &Reporter) {
        if let Some(error) = &self.error {
            reporter.failed(error);
        }
    }
}

fn look(config: &Config, format: Format, hasher: &RandomState, before: Option<u64>) -> Look {
    let bytes = match bytes(config) {
        Ok(bytes) => bytes,
        Err(error) => return (None, Some(Err(error))),
    };
    let digest = Some(hasher.hash_one(&bytes));
    let parsed = (digest != before).then(|| parse(&config.path, format, &bytes));
    (digest, parsed)
}

fn bytes(config: &Config) -> Result<Vec<u8>, Error> {
    let path = &config.path;
    let failed = |source: io::Error| Error::Read {
        path: path.clone(),
        source: Arc::new(source),
    };
    // Opening a pipe would wait for who writes to it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::NoFile { path: path.clone() });
    }
    let limit = config.max_bytes;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(Error::TooLarge {
            path: path.clone(),
            limit,
        });
    }
    Ok(bytes)
}

/// Reads the content of a file.
pub(super) fn parse(path: &Path, format: Format, bytes: &[u8]) -> Result<Lists, Error> {
    let content = |flaw| Error::content(path, flaw);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return Err(content(not_utf8(bytes, error.valid_up_to()))),
    };
    let root = match format {
        Format::Json => json::parse(text),
        Format::Yaml => yaml::parse(text),
    };
    let root = root
        .map_err(content)?
        .filter(|root| root.kind != Kind::Null);
    let Some(root) = root else {
        return Err(Error::Empty {
            path: path.to_owned(),
        });
    };
    let place = root.place;
    let Kind::List(entries) = root.kind else {
        return Err(content(
            Flaw::new("a list of services is expected here").at(place),
        ));
    };
    if entries.len() > MAX_ENDPOINTS {
        return Err(Error::List {
            path: path.to_owned(),
            source: ListError::SourceTooLarge {
                count: entries.len(),
                limit: MAX_ENDPOINTS,
            },
        });
    }
    let mut lists = Lists::new();
    let mut known = HashMap::new();
    for entry in entries {
        let place = entry.place;
        let (service, endpoint) = read(entry).map_err(|flaw| content(flaw.at(place)))?;
        let name = (service.clone(), endpoint.id.clone());
        if let Some(Place { line, .. }) = known.insert(name, place) {
            let id = &endpoint.id;
            let problem = format!(
                "endpoint `{id}` of service `{service}` is also on line {line}; give each an instance of its own"
            );
            return Err(content(Flaw::new(problem).at(place)));
        }
        lists.entry(service).or_default().push(endpoint);
    }
    if lists.len() > MAX_SERVICES {
        return Err(Error::List {
            path: path.to_owned(),
            source: ListError::TooManyServices {
                count: lists.len(),
                limit: MAX_SERVICES,
            },
        });
    }
    for (service, list) in &lists {
        Endpoints::new(list.clone(), 0).map_err(|source| Error::List {
            path: path.to_owned(),
            source: ListError::Service {
                service: service.clone(),
                source: Box::new(source),
            },
        })?;
    }
    Ok(lists)
}

/// One line of the list.
fn read(entry: Node) -> Result<(ServiceName, Endpoint), Flaw> {
    let (service, endpoint) = StaticEntry::deserialize(entry)?.into_endpoint();
    // Alone, so that what is wrong with it is found where it stands.
    match Endpoints::new(vec![endpoint.clone()], 0) {
        Ok(_) => Ok((service, endpoint)),
        Err(error) => Err(Flaw::new(format!("service `{service}`: {error}"))),
    }
}

fn not_utf8(bytes: &[u8], valid: usize) -> Flaw {
    let before = bytes.get(..valid).unwrap_or_default();
    let mut lines = before.split(|byte| *byte == b'\n');
    let line = lines.clone().count();
    let last = lines.next_back().unwrap_or_default();
    let column = String::from_utf8_lossy(last).chars().count() + 1;
    Flaw::new("is not UTF-8").at(Place { line, column })
}

/// Other work of the source waits for so long.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
