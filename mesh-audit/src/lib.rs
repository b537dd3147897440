//! A tamper-evident, crash-safe audit log and its verifier.
//!
//! Records are JSON lines. Each carries the hash of the one before, so an edited, deleted, inserted or moved line is found;
//! with a chain key nobody without the key can seal the log anew; and whoever keeps a [`Head`] elsewhere finds a cut end or an
//! old copy too. Many callers share one write and one sync. A crash loses nothing that was answered, and what it tore is
//! cut off, counted and noted in the log.
//!
//! ```
//! use mesh_audit::{Config, Event, EventKind, OsFileSystem, VerifyOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("audit.log");
//! # let block_on = |append| tokio::runtime::Builder::new_current_thread().build().map(|it| it.block_on(append));
//! let (log, driver) = mesh_audit::open(Config::new(&path), OsFileSystem, std::time::SystemTime::now)?;
//! let writer = std::thread::spawn(move || driver.run());
//!
//! let event = Event::new(EventKind::Message).with("peer", "spiffe://example.org/web").with("status", 200_u16);
//! let receipt = block_on(log.append(event))??; // elsewhere: log.append(event).await?
//! assert_eq!(receipt.head(), Some(log.head()));
//!
//! let known = log.head(); // keep it on another machine
//! drop(log);
//! writer.join().map_err(|_panic| "the writer panicked")?;
//! let options = VerifyOptions::default().with_expect_at_least(known);
//! let report = mesh_audit::verify(std::fs::File::open(&path)?, &options)?;
//! assert_eq!(report.records, 2); // the first says that the log was created
//! # Ok(())
//! # }
//! ```
//!
//! A node answers 503 when [`AuditLog::append`] fails: what can't be recorded is not done. Nothing is ever dropped silently:
//! a refused event is an error for its caller, and counted in [`Stats`].
//!
//! # What this crate does not do
//!
//! - It does not rotate files, sign checkpoints or keep a Merkle tree.
//! - It does not keep heads: without one kept elsewhere, a log cut at the end of a line verifies.
//! - Without a key, who can write the file can seal it anew. With one, so can who has the key; the key does not evolve.
//! - It does not redact: what may be recorded is for the caller to choose, field by field.
//! - It starts no thread and reads no clock of its own.
//!
//! # Modules
//!
//! | module | what |
//! |---|---|
//! | `event` | an event, escaped while it is built |
//! | [`record`] | the line, to the byte, for verifiers in other languages |
//! | `chain` | hashes, the key, the head |
//! | `log`, `queue`, `driver` | the handle, what waits, the writer |
//! | `recover` | tells a crash from damage when a log is opened |
//! | `verify` | the verifier |
//! | `read` | a reader, for those who search or replay a log |
//! | `fs` | the file system as a parameter |
//!
//! # Features
//!
//! None.
//!
//! # Cancel safety
//!
//! [`AuditLog::append`] queues the event before it returns; dropping the future only gives up the answer.
//!
//! # Errors
//!
//! [`OpenError`] when a log is opened, [`AppendError`] for an event, [`VerifyError`] with line and byte for a log that does not
//! verify.

mod chain;
mod config;
mod driver;
mod error;
mod event;
mod fs;
mod lines;
mod log;
mod queue;
mod read;
pub mod record;
mod recover;
mod verify;

pub use chain::{ChainKey, Head, RecordHash};
pub use config::{Config, Durability};
pub use driver::Driver;
pub use error::{AppendError, KeyError, OpenError, ParseError};
pub use event::{Event, EventKind, Value};
pub use fs::{File, FileSystem, OsFileSystem};
pub use log::{AuditLog, Stats, open};
pub use queue::{Append, Receipt};
pub use read::{Record, read};
pub use verify::{Damage, Report, VerifyError, VerifyOptions, verify};
