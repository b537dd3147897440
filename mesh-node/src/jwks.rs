//! Keeping the public keys of issuers fresh: from URLs as `mesh_auth::token::Jwks` says, from files when they change.
//!
//! Requests never fetch. One whose token names an unknown key asks for a fetch and waits a moment for it, which costs the
//! issuer at most one request per interval however many such tokens come (threat 21).

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use mesh_auth::token::Jwks;
use mesh_auth::token::JwksConfig;
use mesh_auth::token::KeySet;
use mesh_auth::token::Next;
use mesh_transport::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::watch;

mod fetch;

pub(crate) use self::fetch::Fetcher;
pub(crate) use self::fetch::Reach;

use crate::config::IssuerConfig;
use crate::credentials::UserCheck;
use crate::error::Error;
use crate::health::Board;
use crate::stack::now;
use crate::stack::outbound::chain;
use crate::telemetry::Telemetry;
use crate::watch::Folders;
use crate::watch::Marks;
use crate::watch::folder_of;

/// What requests and the driver of one issuer's keys share.
#[derive(Debug)]
pub(crate) struct KeyFeed {
    state: Mutex<Jwks>,
    wanted: Notify,
    /// Counts fetches that are over.
    over: watch::Sender<u64>,
    waiting: Semaphore,
}

impl KeyFeed {
    /// Keys of the issuer that `config` names, fetched by nobody yet.
    pub(crate) fn new(config: &IssuerConfig, seed: u64) -> Self {
        let times = JwksConfig::default()
            .with_refresh(config.refresh)
            .with_min_interval(config.min_interval)
            .with_max_stale(config.max_stale);
        Self {
            state: Mutex::new(Jwks::new(times, now(), seed)),
            wanted: Notify::new(),
            over: watch::Sender::new(0),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// Asks for new keys, and waits a moment for them where they are on their way.
    pub(crate) async fn newer(&self) {
        let mut over = self.over.subscribe();
        let is_coming = self.state.lock().unknown_key(now());
        self.wanted.notify_one();
        let Ok(_place) = self.waiting.try_acquire() else {
            return;
        };
        if is_coming {
            // The outcome shows in the keys.
            drop(tokio::time::timeout(PATIENCE, over.changed()).await);
        }
    }
}

/// Fetches the keys of one issuer.
#[derive(Debug)]
pub(crate) struct KeyDriver {
    pub(crate) issuer: Arc<str>,
    pub(crate) feed: Arc<KeyFeed>,
    pub(crate) fetcher: Fetcher,
    pub(crate) users: Arc<UserCheck>,
    pub(crate) shown: Arc<Shown>,
}

impl KeyDriver {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            let next = self.feed.state.lock().next(now());
            match next {
                Next::Fetch => self.fetch().await,
                Next::Wait(at) => self.wait(at).await,
                // Nobody else fetches.
                Next::Fetching => self.feed.wanted.notified().await,
            }
        }
    }

    async fn fetch(&self) {
        let fetched = self.fetcher.fetch().await;
        let at = now();
        let outcome = {
            let mut state = self.feed.state.lock();
            match fetched {
                Ok(body) => state
                    .fetched(at, &body)
                    .map_err(|error| ("refused", chain(&error))),
                Err(error) => {
                    state.failed(at);
                    Err(("failed", chain(&error)))
                }
            }
        };
        match outcome {
            Ok(keys) => {
                self.shown.fetched(&self.issuer, "ok");
                self.shown.well(&self.issuer, &keys);
                self.users.put_keys(&self.issuer, Some(keys));
            }
            Err((result, error)) => {
                self.shown.fetched(&self.issuer, result);
                self.shown.trouble(&self.issuer, &error, self.keep(at));
            }
        }
        self.feed
            .over
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits until `at` or until somebody wants new keys, and gives keys up that become too old meanwhile.
    async fn wait(&self, at: Instant) {
        let stale = self.feed.state.lock().stale_at();
        let until = stale
            .filter(|stale| *stale > now())
            .map_or(at, |stale| stale.min(at));
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = self.feed.wanted.notified() => {}
        }
        let at = now();
        if stale.is_some_and(|stale| stale <= at) && !self.keep(at) {
            self.shown
                .trouble(&self.issuer, "the last good keys are too old", false);
        }
    }

    /// Puts the keys in force that still count; gives whether there are any.
    fn keep(&self, at: Instant) -> bool {
        let keys = self.feed.state.lock().keys(at).cloned();
        let is_some = keys.is_some();
        self.users.put_keys(&self.issuer, keys);
        is_some
    }
}

/// Reads the keys of issuers again when their files change.
#[derive(Debug)]
pub(crate) struct FileDriver {
    pub(crate) files: Vec<(Arc<str>, PathBuf)>,
    pub(crate) users: Arc<UserCheck>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) tasks: Tasks,
}

impl FileDriver {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let folders = self.files.iter().map(|(_issuer, file)| folder_of(file));
        let mut folders = Folders::watch(folders.collect(), "the key sets of issuers");
        let paths: Vec<_> = self
            .files
            .iter()
            .map(|(_issuer, file)| file.as_path())
            .collect();
        let mut seen = vec![Marks::default(); self.files.len()];
        loop {
            folders.changed(|| Marks::of(&paths)).await;
            for ((issuer, file), seen) in self.files.iter().zip(&mut seen) {
                // Marked before it is read: what changes meanwhile gives another mark.
                let marks = Marks::of(&[file]);
                if marks == *seen {
                    continue;
                }
                *seen = marks;
                let path = file.clone();
                match self.tasks.blocking(move || read_keys(&path)).await {
                    Ok(Ok(keys)) => {
                        let keys = Arc::new(keys);
                        self.shown.well(issuer, &keys);
                        self.users.put_keys(issuer, Some(keys));
                    }
                    Ok(Err(error)) => self.shown.trouble(issuer, &chain(&error), true),
                    Err(error) => self.shown.trouble(issuer, &chain(&error), true),
                }
            }
        }
    }
}

/// Where it is told how issuers' keys are.
#[derive(Debug)]
pub(crate) struct Shown {
    health: Arc<Board>,
    telemetry: Arc<Telemetry>,
    troubles: Mutex<BTreeMap<Arc<str>, String>>,
}

impl Shown {
    pub(crate) fn new(health: Arc<Board>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            health,
            telemetry,
            troubles: Mutex::default(),
        }
    }

    fn fetched(&self, issuer: &Arc<str>, result: &'static str) {
        self.telemetry.credentials.fetched(issuer, result);
    }

    fn well(&self, issuer: &Arc<str>, keys: &KeySet) {
        let (used, left_out) = (keys.len(), keys.left_out().len());
        tracing::debug!(%issuer, keys = used, left_out, "keys of an issuer read");
        self.telemetry.credentials.keys_of(issuer, used);
        let was_troubled = self.troubles.lock().remove(issuer).is_some();
        if was_troubled {
            tracing::info!(%issuer, keys = used, "the keys of an issuer can be read again");
            self.show();
        }
    }

    fn trouble(&self, issuer: &Arc<str>, error: &str, has_keys: bool) {
        let consequence = if has_keys {
            "the last good keys stay in force"
        } else {
            self.telemetry.credentials.keys_of(issuer, 0);
            "none of its tokens is accepted"
        };
        tracing::error!(%issuer, error, consequence, "the keys of an issuer can't be read");
        let message = format!("{issuer}: {consequence}: {error}");
        self.troubles.lock().insert(Arc::clone(issuer), message);
        self.show();
    }

    fn show(&self) {
        let troubles = self.troubles.lock();
        if troubles.is_empty() {
            self.health.ok(PART);
        } else {
            let all: Vec<&str> = troubles.values().map(String::as_str).collect();
            self.health.degraded(PART, all.join("; "));
        }
    }
}

/// Reads a key set from a file.
///
/// # Errors
///
/// The file can't be read, or holds no key set.
pub(crate) fn read_keys(file: &Path) -> Result<KeySet, Error> {
    use std::io::Read as _;

    let mut text = Vec::new();
    let limit = u64::try_from(mesh_auth::token::MAX_SET_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(file)
        .and_then(|opened| opened.take(limit + 1).read_to_end(&mut text))
        .map_err(|source| Error::Read {
            path: file.to_owned(),
            source,
        })?;
    KeySet::parse(&text)
        .map_err(|source| Error::config(format!("{} can't be used", file.display()), source))
}

const PART: &str = "issuers";
/// How long a request waits for the keys of its token's issuer. A fetch takes less, or the issuer is in trouble.
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests that wait for one issuer's keys at the same time; others are refused at once.
const MAX_WAITING: usize = 256;

#[cfg(test)]
mod tests;
