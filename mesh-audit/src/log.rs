//! The handle: what callers append to.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::chain::{Head, Sealer};
use crate::config::{Config, Durability};
use crate::driver::Driver;
use crate::error::{AppendError, OpenError};
use crate::event::Event;
use crate::fs::{File, FileSystem};
use crate::queue::{Append, Queue, Receipt};
use crate::record::{Chain, Cut, Millis};
use crate::recover::{ScanError, scan};

/// What happened since the log was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Records on stable storage, with the notices that the log itself wrote.
    pub appended: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Writes, syncs and repairs that failed.
    pub failures: u64,
    /// Events refused: queue full, log failed or closed.
    pub refused: u64,
    /// Events accepted but not made durable: in durable mode those answered with an error, in async
    /// mode those that could not be written before the driver ended.
    pub lost: u64,
    /// Records waiting to be written.
    pub queued: usize,
    /// Whether the log refuses events because of a failed write.
    pub is_failed: bool,
}

/// What callers, driver and clones share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) status: Mutex<Status>,
    pub(crate) clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Shared {
    pub(crate) fn now(&self) -> Millis {
        Millis::from_system((self.clock)())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("queue", &self.queue)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// What the driver reports.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) stats: Stats,
    pub(crate) head: Head,
}

/// A handle to an open log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct AuditLog {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    durability: Durability,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl AuditLog {
    /// Queues an event, at once, and gives a future of the answer.
    ///
    /// With [`Durability::Durable`] the answer comes when the record is on stable storage, with [`Durability::Async`]
    /// immediately. It never waits for room: a full queue is an error, for the caller to answer with 503.
    ///
    /// # Errors
    ///
    /// The future gives [`AppendError::Full`], [`AppendError::Failed`] or [`AppendError::Closed`]. After `Failed` the
    /// event may or may not be in the file; after the others it is not.
    ///
    /// # Cancel safety
    ///
    /// The record is written even if the future is dropped, or never polled.
    pub fn append(&self, event: Event) -> Append {
        match self.push(event) {
            Err(error) => Append::ready(Err(error)),
            Ok(waiting) => match self.handle.durability {
                Durability::Durable => waiting,
                Durability::Async => Append::ready(Ok(Receipt::Queued)),
            },
        }
    }

    /// Queues an event and does not wait for its record.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::append`], as far as it is known at once.
    pub fn try_append(&self, event: Event) -> Result<(), AppendError> {
        self.push(event).map(drop)
    }

    /// Closes the log: later events are refused, and the driver ends after it has written and synced all
    /// that is queued.
    pub fn shutdown(&self) {
        self.handle.shared.queue.close();
    }

    /// The last record known to be on stable storage. Keep it elsewhere, and hold the log against it
    /// with [`crate::VerifyOptions`].
    pub fn head(&self) -> Head {
        self.handle.shared.status.lock().head
    }

    /// What happened since the log was opened.
    pub fn stats(&self) -> Stats {
        let (queued, refused) = self.handle.shared.queue.depth();
        let stats = self.handle.shared.status.lock().stats;
        Stats {
            refused,
            queued,
            ..stats
        }
    }

    fn push(&self, event: Event) -> Result<Append, AppendError> {
        let shared = &self.handle.shared;
        let (commit, index) = shared.queue.push(event, shared.now())?;
        Ok(Append::waiting(commit, index))
    }
}

/// Opens a log, or creates it, and repairs what a crash left.
///
/// The file is locked (one writer), read from start to end and checked; a torn tail is cut off and a
/// `tail_repaired` notice says how many bytes went and their SHA-256. All of this blocks, in proportion to the size of the
/// file. `clock` gives the wall time of each record. Nothing is written later unless [`Driver::run`] runs.
///
/// # Errors
///
/// [`OpenError::Locked`] when another writer has the file, [`OpenError::Damaged`] when it is damaged and not by a crash, or
/// keyed differently (nothing is changed then), [`OpenError::Io`] for the rest.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a file system is a handle, most often a unit, given away like the clock"
)]
pub fn open<F, C>(config: Config, fs: F, clock: C) -> Result<(AuditLog, Driver), OpenError>
where
    F: FileSystem,
    C: Fn() -> SystemTime + Send + Sync + 'static,
{
    let failed = |doing, source| OpenError::Io {
        doing,
        path: config.path.clone(),
        source,
    };
    let mut file = fs
        .open(&config.path)
        .map_err(|source| failed("open", source))?;
    if !file.try_lock().map_err(|source| failed("lock", source))? {
        return Err(OpenError::Locked(config.path));
    }
    let found = match scan(&mut *file, config.key.as_ref()) {
        Ok(found) => found,
        Err(ScanError::Io(source)) => return Err(failed("read", source)),
        Err(ScanError::Damaged {
            line,
            offset,
            damage,
        }) => {
            return Err(OpenError::Damaged {
                path: config.path,
                line,
                offset,
                source: damage,
            });
        }
    };

    let mut chain = Chain::new(Sealer::new(config.key.as_ref()), found.head);
    let now = Millis::from_system(clock());
    let mut lines = Vec::new();
    if found.head == Head::EMPTY {
        chain.seal_created(&mut lines, now);
    }
    if let Some((bytes, sha256)) = found.tail {
        // Cut and sync first, or a second crash could mix the torn bytes with the new ones.
        file.truncate(found.length)
            .and_then(|()| file.sync())
            .map_err(|source| failed("cut the torn tail of", source))?;
        let cut = Cut {
            bytes,
            at: found.length,
            sha256,
            failure: None,
        };
        chain.seal_cut(&mut lines, now, found.head.seq, &cut);
    }
    write_all(&mut *file, &lines).map_err(|source| failed("write to", source))?;
    // What was found may never have been synced; from here on it is taken for durable.
    file.sync().map_err(|source| failed("sync", source))?;

    let head = chain.head();
    let stats = Stats {
        appended: head.seq - found.head.seq,
        bytes: lines.len() as u64,
        syncs: 1,
        ..Stats::default()
    };
    let queue = Queue::new(
        config.max_queued_records.get(),
        config.max_queued_bytes.get(),
    );
    let shared = Arc::new(Shared {
        queue,
        status: Mutex::new(Status { stats, head }),
        clock: Box::new(clock),
    });
    let handle = Handle {
        shared: Arc::clone(&shared),
        durability: config.durability,
    };
    let length = found.length + lines.len() as u64;
    Ok((
        AuditLog {
            handle: Arc::new(handle),
        },
        Driver::new(shared, file, chain, length, &config),
    ))
}

/// Writes everything, however short the single writes are.
pub(crate) fn write_all(file: &mut dyn File, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    const fn assert_send<T: Send>() {}
    assert_send_sync::<AuditLog>();
    assert_send_sync::<Append>();
    assert_send::<Driver>();
};
