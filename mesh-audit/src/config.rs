//! The settings of a log.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::chain::ChainKey;

/// When an append is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// After the record is on stable storage. Appends that wait together share one sync, so many callers cost hardly
    /// more than one; each waits one to two syncs (some milliseconds on a disk that keeps its promises).
    #[default]
    Durable,
    /// As soon as the record is queued. It is written within 10 ms and synced every
    /// [`Config::sync_interval`]: a crash of the process loses at most the last 10 ms, a power cut
    /// the last interval. What was accepted survives a failing disk as long as the process lives.
    Async,
}

/// How a log is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The file. It is created, with the folders above it, if it is missing.
    pub path: PathBuf,
    /// When an append is answered. Default [`Durability::Durable`].
    pub durability: Durability,
    /// Most records that wait to be written; more are refused. Default 8192.
    pub max_queued_records: NonZeroUsize,
    /// Most bytes that wait to be written; more are refused. Default 4 MiB. Worst-case memory is about
    /// four times this plus 400 bytes a record.
    pub max_queued_bytes: NonZeroUsize,
    /// Time between two syncs with [`Durability::Async`]. Default 1 s.
    pub sync_interval: Duration,
    /// Time between two attempts to repair the file after a failed write. Default 250 ms.
    pub retry_interval: Duration,
    /// The chain key. Default none: then who can write the file can also re-seal it.
    pub key: Option<ChainKey>,
}

impl Config {
    /// The defaults, for this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::default(),
            max_queued_records: MAX_QUEUED_RECORDS,
            max_queued_bytes: MAX_QUEUED_BYTES,
            sync_interval: SYNC_INTERVAL,
            retry_interval: RETRY_INTERVAL,
            key: None,
        }
    }

    /// Sets when an append is answered.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the bounds of the queue.
    #[must_use]
    pub fn with_queue(mut self, records: NonZeroUsize, bytes: NonZeroUsize) -> Self {
        self.max_queued_records = records;
        self.max_queued_bytes = bytes;
        self
    }

    /// Sets the time between two syncs with [`Durability::Async`].
    #[must_use]
    pub fn with_sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = interval;
        self
    }

    /// Sets the time between two attempts to repair the file.
    #[must_use]
    pub fn with_retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval = interval;
        self
    }

    /// Keys the chain.
    #[must_use]
    pub fn with_key(mut self, key: ChainKey) -> Self {
        self.key = Some(key);
        self
    }
}

/// A second and a half of the 5,000 records a second that a disk with a 4 ms sync is to take.
const MAX_QUEUED_RECORDS: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
/// 512 bytes for each of them: twice a usual record.
const MAX_QUEUED_BYTES: NonZeroUsize = NonZeroUsize::new(4 * 1024 * 1024).unwrap();
/// As Redis' `appendfsync everysec`: what a power cut may take at most.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Four attempts a second: service is back well within one second after space is.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
