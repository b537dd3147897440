//! What can go wrong when a log is opened or written to.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::verify::Damage;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file could not be created, read, repaired or synced.
    #[error("could not {doing} the audit log {}; check that its folder exists, is writable and has space", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process, or another log in this one, is writing to the file.
    #[error("the audit log {} is held by another writer; stop that one or use another path", .0.display())]
    Locked(PathBuf),
    /// The file is damaged in a way that a crash can't explain. Nothing was changed.
    #[error(
        "the audit log {} is damaged at line {line} (byte {offset}), and not by a crash; keep the file as evidence and start a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first bad line, from 1.
        line: u64,
        /// Where that line starts, in bytes.
        offset: u64,
        /// What is wrong with it.
        source: Damage,
    },
}

/// Why a record was not accepted, or not made durable.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The queue is full: the disk is slower than the events come. The event was not recorded.
    #[error(
        "the audit queue is full with {records} records and {bytes} bytes; answer 503 and let the caller retry"
    )]
    Full {
        /// Records waiting.
        records: usize,
        /// Bytes waiting.
        bytes: usize,
    },
    /// Writing or syncing failed. The event is not recorded, or not known to be. The log refuses
    /// events until its driver has repaired the file.
    #[error("the audit log could not be written; answer 503 until space and disk are back")]
    Failed(#[source] Arc<io::Error>),
    /// The log was shut down or its driver has ended. The event was not recorded.
    #[error("the audit log is closed")]
    Closed,
}

/// Why bytes are not a chain key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is too short to be safe.
    #[error("a chain key of {found} bytes is too short; use at least {least} random bytes")]
    TooShort {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        least: usize,
    },
}

/// Why a text is not a [`crate::RecordHash`], [`crate::Head`] or [`crate::EventKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not 64 lower-case hexadecimal digits.
    #[error("a record hash is 64 lower-case hexadecimal digits")]
    Hash,
    /// Not `SEQ:HASH`.
    #[error("a head is written as SEQ:HASH, for instance 7:9f86…")]
    Head,
    /// Not one of the five kinds.
    #[error("an event kind is one of connection, message, error, key_rotation, notice")]
    Kind,
}
