//! The writer: takes what waits, seals it, writes it with one call, syncs once and wakes everyone.
//!
//! Serialising is split where it is cheapest for a request. The caller escapes its strings while
//! it copies them out of the request, which it has to do anyway, and on its own core; sequence number, time, hashes and
//! hexadecimal need the order of the chain and are added here, off the request path.
//!
//! # Sources
//!
//! Group commit: `DeWitt` et al., "Implementation Techniques for Main Memory Database Systems", SIGMOD 1984, section 5.
//! A failed sync is never retried as if the same bytes could still be saved: Rebello et al., "Can
//! Applications Recover from fsync Failures?", USENIX ATC 2020. The file is cut back to what was synced instead, and
//! what must survive is written again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::chain::{Head, RecordHash};
use crate::config::{Config, Durability};
use crate::error::AppendError;
use crate::fs::File;
use crate::log::{Shared, write_all};
use crate::queue::{Batch, Sealed, Wait};
use crate::record::{Chain, Cut};

/// The writing half of a log, for a thread of its own.
///
/// When it is dropped, also by a panic, the log is closed and whoever waits is told so.
pub struct Driver {
    shared: Arc<Shared>,
    file: Box<dyn File>,
    chain: Chain,
    durability: Durability,
    sync_interval: Duration,
    retry_interval: Duration,
    /// The records that make a batch worth writing before [`WRITE_DELAY`] is over.
    half_queue: usize,
    batch: Batch,
    last_batch: usize,
    /// The last record on stable storage, and the length of the file up to it.
    synced: Head,
    length: u64,
    /// Lines after that, written or not.
    unsynced: Vec<u8>,
    unsynced_records: u64,
    unsynced_since: Option<SystemTime>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        file: Box<dyn File>,
        chain: Chain,
        length: u64,
        config: &Config,
    ) -> Self {
        Self {
            shared,
            file,
            synced: chain.head(),
            chain,
            durability: config.durability,
            sync_interval: config.sync_interval,
            retry_interval: config.retry_interval,
            half_queue: (config.max_queued_records.get() / 2).max(1),
            batch: Batch::default(),
            last_batch: 0,
            length,
            unsynced: Vec::new(),
            unsynced_records: 0,
            unsynced_since: None,
        }
    }

    /// Writes until every [`crate::AuditLog`] is dropped or one was shut down, then writes and syncs
    /// what is left and returns. Blocks; give it a thread.
    ///
    /// After a failed write or sync the log refuses events, and the file is repaired as soon as the disk lets it:
    /// every [`Config::retry_interval`] it is cut back to the last durable record, a `log_recovered` notice is
    /// written and synced, and only when that succeeds are events accepted again.
    pub fn run(mut self) {
        loop {
            let wait = self.wait();
            match self.turn(wait) {
                Ok(()) if wait.is_closing => return,
                Ok(()) => {}
                Err(error) => {
                    if !self.recover(error) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until there is something worth writing or syncing.
    fn wait(&self) -> Wait {
        let queue = &self.shared.queue;
        match self.durability {
            Durability::Durable => {
                let wait = queue.wait(1, None);
                // Callers that were just answered append again at once: wait for them a moment, or the first would have
                // a sync of its own and all others would wait for that one too.
                if self.last_batch < GATHER_FROM
                    || wait.records >= self.last_batch
                    || wait.is_closing
                {
                    return wait;
                }
                queue.wait(self.last_batch, Some(GATHER))
            }
            Durability::Async => {
                let wait = queue.wait(1, self.until_sync());
                if wait.records == 0 || wait.is_closing {
                    return wait;
                }
                // Callers do not wake the writer meanwhile, which would cost each of them a system call.
                queue.wait(self.half_queue, Some(WRITE_DELAY))
            }
        }
    }

    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.shared.queue.take(&mut self.batch);
        let first = self.chain.head().seq + 1;
        let written = self.unsynced.len();
        let mut hashes = Vec::with_capacity(self.batch.len());
        for (stamp, fields) in self.batch.records() {
            let head = self
                .chain
                .seal(&mut self.unsynced, stamp, self.synced.seq, fields);
            hashes.push(head.hash);
        }
        self.last_batch = hashes.len();
        self.unsynced_records += hashes.len() as u64;
        write_all(
            &mut *self.file,
            self.unsynced.get(written..).unwrap_or_default(),
        )?;
        if self.unsynced_since.is_none() && !self.unsynced.is_empty() {
            self.unsynced_since = Some((self.shared.clock)());
        }
        if self.is_sync_due(wait) {
            self.sync()?;
        }
        self.batch.commit.finish(Ok(Sealed {
            first,
            hashes: hashes.into(),
        }));
        self.batch.renew();
        Ok(())
    }

    fn is_sync_due(&self, wait: Wait) -> bool {
        !self.unsynced.is_empty()
            && (self.durability == Durability::Durable
                || wait.is_closing
                || self.unsynced.len() >= SYNC_BYTES
                || self.until_sync() == Some(Duration::ZERO))
    }

    /// How long what is not synced may still wait; `None` if there is nothing.
    fn until_sync(&self) -> Option<Duration> {
        let elapsed = (self.shared.clock)().duration_since(self.unsynced_since?);
        // A clock that was set back says nothing about the time that passed.
        Some(elapsed.map_or(Duration::ZERO, |elapsed| {
            self.sync_interval.saturating_sub(elapsed)
        }))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.synced = self.chain.head();
        self.length += self.unsynced.len() as u64;
        let mut status = self.shared.status.lock();
        status.head = self.synced;
        status.stats.syncs += 1;
        status.stats.appended += self.unsynced_records;
        status.stats.bytes += self.unsynced.len() as u64;
        drop(status);
        self.unsynced.clear();
        self.unsynced_records = 0;
        self.unsynced_since = None;
        Ok(())
    }

    /// Refuses events until the file is repaired; `false` if the log was closed before that.
    fn recover(&mut self, error: io::Error) -> bool {
        let error = Arc::new(error);
        let refused_before = self.shared.queue.fail(Arc::clone(&error));
        // Before anyone is answered, so that who learns of the failure also sees it in the figures.
        let mut status = self.shared.status.lock();
        status.stats.is_failed = true;
        status.stats.failures += 1;
        drop(status);
        let (mut bytes, mut sha256) = (0, Sha256::digest(b""));
        if self.durability == Durability::Durable {
            (bytes, sha256) = (self.unsynced.len() as u64, Sha256::digest(&self.unsynced));
            self.give_up(&AppendError::Failed(Arc::clone(&error)));
            self.chain.rewind(self.synced);
            self.unsynced.clear();
            self.unsynced_since = None;
        } else {
            // What was accepted stays in `unsynced` and is written again.
            self.batch.renew();
        }

        loop {
            let wait = self
                .shared
                .queue
                .wait(usize::MAX, Some(self.retry_interval));
            let refused = self.shared.queue.depth().1 - refused_before;
            let failure = Some((refused, &*error));
            let cut = Cut {
                bytes,
                at: self.length,
                sha256: RecordHash::from_bytes(sha256.into()),
                failure,
            };
            if self.repair(&cut).is_ok() {
                self.shared.status.lock().stats.is_failed = false;
                self.shared.queue.heal();
                return true;
            }
            self.shared.status.lock().stats.failures += 1;
            if wait.is_closing {
                return false;
            }
        }
    }

    /// Cuts the file back to what was synced and writes what was not, and a notice, anew.
    fn repair(&mut self, cut: &Cut<'_>) -> io::Result<()> {
        self.file.truncate(self.length)?;
        self.file.sync()?;
        let (head, kept) = (self.chain.head(), self.unsynced.len());
        self.chain
            .seal_cut(&mut self.unsynced, self.shared.now(), self.synced.seq, cut);
        self.unsynced_records += 1;
        let result = write_all(&mut *self.file, &self.unsynced).and_then(|()| self.sync());
        if result.is_err() {
            self.chain.rewind(head);
            self.unsynced.truncate(kept);
            self.unsynced_records -= 1;
        }
        result
    }

    /// Answers all that were accepted and not synced with an error.
    fn give_up(&mut self, error: &AppendError) {
        let written = std::mem::take(&mut self.batch);
        self.shared.queue.take(&mut self.batch);
        let lost = std::mem::take(&mut self.unsynced_records) + self.batch.len() as u64;
        self.shared.status.lock().stats.lost += lost;
        written.commit.finish(Err(error.clone()));
        self.batch.commit.finish(Err(error.clone()));
        self.batch.renew();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.give_up(&AppendError::Closed);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("synced", &self.synced)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// From this many records in the last batch on the next one is waited for; `PostgreSQL`'s `commit_siblings` is 5.
const GATHER_FROM: usize = 4;
/// How long: well below a sync (4.4 ms on the disk of the reliability goals), above the time that some dozen tasks need to
/// be woken (20 to 40 µs each, partly at the same time).
const GATHER: Duration = Duration::from_micros(300);
/// How long asynchronous records wait for company: half of the 10 ms that are promised.
const WRITE_DELAY: Duration = Duration::from_millis(5);
/// Asynchronous lines that are synced before their interval is over. Bounds the memory that holds
/// them in case they must be written again.
const SYNC_BYTES: usize = 4 * 1024 * 1024;
