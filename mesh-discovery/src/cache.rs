//! The last good lists on disk, so that a node that starts while its registry is away can call others.
//!
//! [`Cache`] holds the lists of all registries that were made with
//! [`RegistryConfig::with_cache`](crate::RegistryConfig::with_cache); its [`CacheDriver`] has them written when they have
//! changed, at most once a second, and a last time in the end. What is read at the start stands as
//! [`Staleness::Restored`](crate::Staleness::Restored) until the registry answers, and that answer is judged against it: a
//! registry that comes back without its data does not empty it.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::SystemTime;
//!
//! use mesh_discovery::RegistryConfig;
//! use mesh_discovery::cache::Cache;
//! use mesh_discovery::cache::CacheConfig;
//! use mesh_discovery::cache::CacheStorage;
//! use mesh_discovery::cache::FileStorage;
//!
//! # async fn run(until: impl Future<Output = ()>) -> Result<(), Box<dyn std::error::Error>> {
//! let storage = Arc::new(FileStorage::new("/var/lib/mesh/discovery.cache"));
//! let config = CacheConfig::default();
//! let (cache, driver) = Cache::new(config, Arc::new(SystemTime::now));
//! // A cache that can't be used is no reason not to start.
//! if let Err(error) = cache.load(&*storage) {
//!     eprintln!("{error}");
//! }
//! let registry = RegistryConfig::new("consul").with_cache(cache);
//! # drop(registry);
//! // Writing waits for the disk, so it is done on a thread where that harms nobody.
//! let save = |image: mesh_discovery::cache::CacheImage| {
//!     let storage = Arc::clone(&storage);
//!     async move {
//!         let written = tokio::task::spawn_blocking(move || storage.store(&image.encode()));
//!         Ok(written.await??)
//!     }
//! };
//! driver.run(save, until).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is trusted
//!
//! A list from disk is what the registry said before, no more: who can write the file can do what the registry can do,
//! and a file that others can write, or that belongs to somebody else, is refused. It names endpoints and the SPIFFE ids
//! that a registry gave them, and goes through the same [`Admission`](crate::Admission) as an answer of the registry, under
//! the rules that are configured now, not those under which it was written. So an old file can't bring back an id that is
//! no longer let in, and each peer must prove its identity as always. The hash finds damage, not forgery.
//!
//! # Format
//!
//! A header in JSON on the first line (format, version, time in seconds since 1970, length and SHA-256 of the rest), then
//! JSON. A file that is damaged, truncated, too old or of another version is refused whole. A service or endpoint in it that
//! no registry may name is left out alone; that is also so of link-local addresses, which only the rules of the DNS source
//! can let in: they are asked for anew.

mod file;
mod format;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use tokio::sync::Notify;

pub use self::file::FileStorage;
use crate::endpoint::Endpoints;
use crate::error::Error;
use crate::error::chain;
use crate::name::ServiceName;
use crate::recall::Recall;
use crate::subscription::now;

/// Any error of who writes.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the time of day.
pub type ClockFor = dyn Fn() -> SystemTime + Send + Sync;

/// What a cache holds, and for how long.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// How old a list may be that is used: since the registry last stood by it. Default 7 days. Older ones lead to
    /// addresses that are somebody else's by now.
    pub max_age: Duration,
    /// The most services of all sources together; those that were not heard of for longest leave. Default 10,000.
    pub max_services: usize,
    /// The largest file, in bytes; it is read whole. Default 64 MiB, room for 200,000 endpoints.
    pub max_bytes: usize,
}

impl CacheConfig {
    /// With another age.
    #[must_use]
    pub fn with_max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// With other bounds.
    #[must_use]
    pub fn with_bounds(self, max_services: usize, max_bytes: usize) -> Self {
        Self {
            max_services,
            max_bytes,
            ..self
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_age: MAX_AGE,
            max_services: MAX_SERVICES,
            max_bytes: MAX_BYTES,
        }
    }
}

/// Where the bytes are kept.
pub trait CacheStorage: Send + Sync {
    /// What was stored last, if anything; at most `limit` bytes of it.
    ///
    /// # Errors
    ///
    /// [`CacheError::Read`], [`CacheError::Unsafe`] or [`CacheError::TooLarge`].
    fn load(&self, limit: usize) -> Result<Option<Vec<u8>>, CacheError>;

    /// Puts this in place of what was there, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`CacheError::Write`].
    fn store(&self, bytes: &[u8]) -> Result<(), CacheError>;
}

/// The last good list of each service.
pub struct Cache {
    config: CacheConfig,
    clock: Arc<ClockFor>,
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    lists: HashMap<(Arc<str>, ServiceName), List>,
    /// Something has changed since it was written last.
    is_dirty: bool,
}

#[derive(Clone, Debug)]
struct List {
    endpoints: Endpoints,
    /// When the registry last stood by it, in seconds since 1970.
    seen: u64,
    /// What of that is on disk.
    seen_on_disk: u64,
}

impl Cache {
    /// An empty cache, and what has it written.
    pub fn new(config: CacheConfig, clock: Arc<ClockFor>) -> (Arc<Self>, CacheDriver) {
        let cache = Arc::new(Self {
            config,
            clock,
            table: Mutex::default(),
            changed: Notify::new(),
        });
        let driver = CacheDriver {
            cache: Arc::clone(&cache),
        };
        (cache, driver)
    }

    /// Takes in what was written before; gives the number of services. Waits for the disk. What can't be used of a file that
    /// is whole is left out, and logged.
    ///
    /// # Errors
    ///
    /// [`CacheError`], and the cache stays as it was.
    pub fn load(&self, storage: &dyn CacheStorage) -> Result<usize, CacheError> {
        let Some(bytes) = storage.load(self.config.max_bytes)? else {
            return Ok(0);
        };
        let now = self.now();
        let decoded = format::decode(&bytes, now, self.config.max_age)?;
        if let Some(error) = &decoded.first {
            tracing::warn!(
                left_out = decoded.left_out,
                error = chain(error),
                "parts of the cache of endpoints can't be used"
            );
        }
        let mut items = decoded.items;
        items.truncate(self.config.max_services);
        let count = items.len();
        let mut table = self.table();
        for item in items {
            let list = List {
                endpoints: item.endpoints,
                seen: item.seen,
                seen_on_disk: item.seen,
            };
            table.lists.insert((item.source, item.service), list);
        }
        Ok(count)
    }

    /// The newest lists first, without those that are too old, which are forgotten.
    fn image(&self) -> CacheImage {
        let now = self.now();
        let oldest = now.saturating_sub(self.config.max_age.as_secs());
        let mut table = self.table();
        table.is_dirty = false;
        table.lists.retain(|_, list| list.seen >= oldest);
        let item = |((source, service), list): (&(Arc<str>, ServiceName), &mut List)| {
            list.seen_on_disk = list.seen;
            format::Item {
                source: Arc::clone(source),
                service: service.clone(),
                seen: list.seen,
                endpoints: list.endpoints.clone(),
            }
        };
        let mut items: Vec<_> = table.lists.iter_mut().map(item).collect();
        drop(table);
        items.sort_by(|a, b| (b.seen, &a.source, &a.service).cmp(&(a.seen, &b.source, &b.service)));
        CacheImage {
            items,
            written: now,
            max_bytes: self.config.max_bytes,
        }
    }

    fn now(&self) -> u64 {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while the lock is held, and the table is whole between any two statements.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recall for Cache {
    fn recall(&self, source: &Arc<str>, service: &ServiceName) -> Option<Endpoints> {
        let oldest = self.now().saturating_sub(self.config.max_age.as_secs());
        let table = self.table();
        let list = table.lists.get(&(Arc::clone(source), service.clone()))?;
        (list.seen >= oldest).then(|| list.endpoints.clone())
    }

    fn remember(&self, source: &Arc<str>, service: &ServiceName, endpoints: &Endpoints) {
        let seen = self.now();
        let key = (Arc::clone(source), service.clone());
        let mut table = self.table();
        let known = table.lists.get_mut(&key);
        let is_news = match known {
            _ if endpoints.is_empty() => table.lists.remove(&key).is_some(),
            Some(list) => {
                let is_new = *list.endpoints != **endpoints;
                list.endpoints = endpoints.clone();
                list.seen = seen;
                is_new || seen.saturating_sub(list.seen_on_disk) >= REFRESH.as_secs()
            }
            None => {
                if table.lists.len() >= self.config.max_services {
                    table.forget_oldest();
                }
                let list = List {
                    endpoints: endpoints.clone(),
                    seen,
                    seen_on_disk: seen,
                };
                table.lists.insert(key, list);
                true
            }
        };
        if is_news {
            table.is_dirty = true;
            drop(table);
            self.changed.notify_one();
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("config", &self.config)
            .field("services", &self.table().lists.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    fn forget_oldest(&mut self) {
        let oldest = self.lists.iter().min_by_key(|(_, list)| list.seen);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.lists.remove(&key);
        }
    }
}

/// What is to be written: a moment of a cache.
#[derive(Clone, Debug)]
pub struct CacheImage {
    items: Vec<format::Item>,
    written: u64,
    max_bytes: usize,
}

impl CacheImage {
    /// The bytes. Takes a few milliseconds for each thousand endpoints.
    ///
    /// What has no room any more is left out, what was not heard of for longest first.
    pub fn encode(&self) -> Vec<u8> {
        let (bytes, left_out) = format::encode(&self.items, self.written, self.max_bytes);
        if left_out > 0 {
            tracing::warn!(
                left_out,
                limit = self.max_bytes,
                "services have no room in the cache of endpoints"
            );
        }
        bytes
    }
}

/// Has a cache written when it has changed.
#[derive(Debug)]
#[must_use = "nothing is written unless this is run"]
pub struct CacheDriver {
    cache: Arc<Cache>,
}

impl CacheDriver {
    /// Gives `save` what is to be written, at most once a second and for at most a twentieth of the time, until `until`
    /// ends, and a last time then. What could not be written is tried again after 10 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses what was not written yet.
    pub async fn run<F>(self, save: impl Fn(CacheImage) -> F, until: impl Future<Output = ()>)
    where
        F: Future<Output = Result<(), BoxError>>,
    {
        let mut until = std::pin::pin!(until);
        let mut failure = None;
        let mut pause = Duration::ZERO;
        loop {
            let wait = async {
                tokio::time::sleep(pause).await;
                while !self.cache.table().is_dirty {
                    self.cache.changed.notified().await;
                }
            };
            let is_last = tokio::select! {
                biased;
                () = &mut until => true,
                () = wait => false,
            };
            if is_last && !self.cache.table().is_dirty {
                return;
            }
            let begun = now();
            let saved = save(self.cache.image()).await;
            let took = now().saturating_duration_since(begun);
            pause = PAUSE.max(took.saturating_mul(SHARE)).min(LONGEST_PAUSE);
            let text = saved.err().map(|error| chain(&*error));
            if text.is_some() {
                self.cache.table().is_dirty = true;
                pause = pause.max(AGAIN);
            }
            if let Some(error) = text.as_deref().filter(|_| text != failure) {
                tracing::warn!(error, "the endpoints are not kept on disk");
            }
            failure = text;
            if is_last {
                return;
            }
        }
    }
}

/// Why a cache can't be read or written. A node can do without.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It can't be read.
    #[error("could not read the cache of endpoints {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be written.
    #[error("could not write the cache of endpoints {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could have written it.
    #[error("the cache of endpoints {} {why}; delete it", path.display())]
    Unsafe {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// It is larger than any that is written.
    #[error("the cache of endpoints has more than {limit} bytes; delete it")]
    TooLarge {
        /// How many are accepted.
        limit: usize,
    },
    /// It is something else.
    #[error("the cache of endpoints does not begin with its header; delete it")]
    NoHeader,
    /// It is from a program that writes another format.
    #[error(
        "the cache of endpoints has version {found} and this program reads {read}; it is written anew"
    )]
    Version {
        /// The version of the file.
        found: u64,
        /// The version that is read.
        read: u64,
    },
    /// Part of it is missing, or there is more.
    #[error("the cache of endpoints has {found} bytes in place of {expected}; it is written anew")]
    Length {
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// It was changed.
    #[error("the cache of endpoints is damaged: its hash is another; it is written anew")]
    Damaged,
    /// It was written too long ago.
    #[error("the cache of endpoints is {} hours old, and the limit is {}", age.as_secs() / 3600, limit.as_secs() / 3600)]
    TooOld {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        limit: Duration,
    },
    /// Its content is not what this program writes.
    #[error("the cache of endpoints can't be read as JSON of its kind; it is written anew")]
    Content {
        /// Why.
        source: serde_json::Error,
    },
    /// A name in it is none; the service or endpoint is left out.
    #[error("the cache of endpoints names a service or host that can't be used")]
    Name {
        /// Why.
        source: BoxError,
    },
    /// An endpoint in it can't be used, and is left out.
    #[error("the cache of endpoints holds an endpoint that can't be used")]
    List {
        /// Why.
        source: Error,
    },
}

/// Addresses are handed out anew within days.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// As many as one source has watched.
const MAX_SERVICES: usize = crate::subscription::MAX_SERVICES;
const MAX_BYTES: usize = 64 << 20;
/// How old what is on disk may become while the registry stands by it.
const REFRESH: Duration = Duration::from_hours(1);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The pause after a write, as a multiple of its time.
const SHARE: u32 = 19;
const AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
