//! A file system in memory that records what is done to it and fails when told to.

#![expect(dead_code, reason = "each test file uses a part of it")]

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_audit::{AuditLog, Config, Event, EventKind, File, FileSystem, Head, OpenError};
use parking_lot::{Condvar, Mutex};

/// What was done to the file, successfully or not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Write(Vec<u8>),
    Sync,
    Truncate(u64),
    Failed(Call),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Call {
    Write,
    Sync,
    Truncate,
}

/// What becomes of a call.
pub(crate) enum Fault {
    Errno(i32),
    /// Takes at most so many bytes.
    Short(usize),
}

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;

type Faults = Box<dyn FnMut(Call) -> Option<Fault> + Send>;

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) content: Vec<u8>,
    pub(crate) trace: Vec<Op>,
    locked: bool,
    faults: Option<Faults>,
    syncs_are_held: bool,
    syncs_waiting: usize,
}

#[derive(Clone, Default)]
pub(crate) struct MemFs(Arc<(Mutex<Disk>, Condvar)>);

impl MemFs {
    pub(crate) fn holding(content: Vec<u8>) -> Self {
        let fs = Self::default();
        fs.0.0.lock().content = content;
        fs
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Disk) -> T) -> T {
        look(&mut self.0.0.lock())
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.with(|disk| disk.content.clone())
    }

    pub(crate) fn set_faults(&self, faults: impl FnMut(Call) -> Option<Fault> + Send + 'static) {
        self.with(|disk| disk.faults = Some(Box::new(faults)));
    }

    pub(crate) fn clear_faults(&self) {
        self.with(|disk| disk.faults = None);
    }

    pub(crate) fn count(&self, call: Call) -> usize {
        self.with(|disk| disk.trace.iter().filter(|op| kind(op) == call).count())
    }

    /// Lets syncs block until released.
    pub(crate) fn hold_syncs(&self, held: bool) {
        self.with(|disk| disk.syncs_are_held = held);
        self.0.1.notify_all();
    }

    /// Blocks until a sync blocks.
    pub(crate) fn wait_for_sync(&self) {
        let mut disk = self.0.0.lock();
        while disk.syncs_waiting == 0 {
            self.0.1.wait(&mut disk);
        }
    }
}

fn kind(op: &Op) -> Call {
    match op {
        Op::Write(_) => Call::Write,
        Op::Sync => Call::Sync,
        Op::Truncate(_) => Call::Truncate,
        Op::Failed(call) => *call,
    }
}

impl FileSystem for MemFs {
    fn open(&self, _path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(MemFile {
            fs: self.clone(),
            at: 0,
            holds_lock: false,
        }))
    }
}

struct MemFile {
    fs: MemFs,
    at: usize,
    holds_lock: bool,
}

impl Disk {
    fn fault(&mut self, call: Call) -> io::Result<usize> {
        match self.faults.as_mut().and_then(|faults| faults(call)) {
            None => Ok(usize::MAX),
            Some(Fault::Short(bytes)) => Ok(bytes),
            Some(Fault::Errno(code)) => {
                self.trace.push(Op::Failed(call));
                Err(io::Error::from_raw_os_error(code))
            }
        }
    }
}

impl File for MemFile {
    fn try_lock(&mut self) -> io::Result<bool> {
        self.holds_lock = self
            .fs
            .with(|disk| !std::mem::replace(&mut disk.locked, true));
        Ok(self.holds_lock)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        let read = self.fs.with(|disk| {
            let rest = &disk.content[at.min(disk.content.len())..];
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            length
        });
        self.at += read;
        Ok(read)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.fs.with(|disk| {
            let taken = disk.fault(Call::Write)?.min(bytes.len());
            disk.content.extend_from_slice(&bytes[..taken]);
            disk.trace.push(Op::Write(bytes[..taken].to_vec()));
            Ok(taken)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let (lock, changed) = &*self.fs.0;
        let mut disk = lock.lock();
        disk.syncs_waiting += 1;
        changed.notify_all();
        while disk.syncs_are_held {
            changed.wait(&mut disk);
        }
        disk.syncs_waiting -= 1;
        disk.fault(Call::Sync)?;
        disk.trace.push(Op::Sync);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.fs.with(|disk| {
            disk.fault(Call::Truncate)?;
            disk.content.truncate(usize::try_from(length).unwrap());
            disk.trace.push(Op::Truncate(length));
            Ok(())
        })
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if self.holds_lock {
            self.fs.with(|disk| disk.locked = false);
        }
    }
}

pub(crate) fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

pub(crate) fn config() -> Config {
    Config::new("audit.log").with_retry_interval(Duration::from_millis(1))
}

/// An open log whose driver runs on a thread.
pub(crate) struct Running {
    pub(crate) log: AuditLog,
    writer: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(config: Config, fs: &MemFs) -> Self {
        Self::try_start(config, fs).unwrap()
    }

    pub(crate) fn try_start(config: Config, fs: &MemFs) -> Result<Self, OpenError> {
        let (log, driver) = mesh_audit::open(config, fs.clone(), clock)?;
        Ok(Self {
            log,
            writer: std::thread::spawn(move || driver.run()),
        })
    }

    /// Drops the log and waits for the driver to end.
    pub(crate) fn stop(self) {
        drop(self.log);
        self.writer.join().unwrap();
    }

    pub(crate) fn append(&self, id: u64) -> Result<Head, mesh_audit::AppendError> {
        block_on(self.log.append(event(id))).map(|receipt| receipt.head().unwrap())
    }
}

pub(crate) fn event(id: u64) -> Event {
    Event::new(EventKind::Message)
        .with("id", id)
        .with("peer", "spiffe://example.org/web")
        .with("path", "/api/orders")
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

pub(crate) fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

/// The `id` of every record that has one.
pub(crate) fn ids(content: &[u8]) -> Vec<u64> {
    let lines = content
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    let value = |line| serde_json::from_slice::<serde_json::Value>(line).unwrap();
    lines
        .filter_map(|line| value(line)["id"].as_u64())
        .collect()
}
