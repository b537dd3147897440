//! What the key store needs of a file system.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;

use crate::Secret;

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// Anything else, a symbolic link too.
    Other,
}

/// Kind, permission bits and owner of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Its permission bits, as `0o600`.
    pub mode: u32,
    /// The number of the user whose it is.
    pub owner: u32,
}

impl FileInfo {
    /// An entry of this kind with these permission bits and this owner.
    pub const fn new(kind: FileKind, mode: u32, owner: u32) -> Self {
        Self { kind, mode, owner }
    }
}

/// The few calls that the key store makes by path.
pub trait FileSystem: Send + Sync + Debug {
    /// The number of the user that we act as.
    fn user(&self) -> u32;

    /// Makes a directory of mode 0700, and makes that last through a crash; its parent exists.
    ///
    /// # Errors
    ///
    /// What the system says; `AlreadyExists` if there is something.
    fn create_private_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a directory; if it is a symbolic link that is not followed.
    ///
    /// # Errors
    ///
    /// What the system says; `NotFound` if there is none, `NotADirectory` if there is something else.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>>;

    /// Reads a file whole, links followed, with what is known of the very file that was read.
    ///
    /// # Errors
    ///
    /// What the system says; `InvalidData` if it is longer than `max_bytes`.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<(FileInfo, Secret)>;
}

/// An open directory: every call is about what was opened, whatever lies at its path by now.
pub trait Directory: Debug {
    /// What is known of the directory itself.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn info(&self) -> io::Result<FileInfo>;

    /// The names in it, in any order.
    ///
    /// # Errors
    ///
    /// What the system says; `InvalidData` if there are more than `max`.
    fn names(&self, max: usize) -> io::Result<Vec<OsString>>;

    /// Opens a file, reads it whole, and says what is known of the very file that was read. What is no regular file (a
    /// symbolic link, a pipe) is not read: its bytes are empty.
    ///
    /// # Errors
    ///
    /// What the system says; `InvalidData` if it is longer than `max_bytes`.
    fn read(&self, name: &str, max_bytes: u64) -> io::Result<(FileInfo, Secret)>;

    /// Makes a file of mode 0600 that was not there, with these bytes, and syncs it.
    ///
    /// # Errors
    ///
    /// What the system says; `AlreadyExists` if it was there.
    fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Renames a file within the directory, replacing what is there, at once or not at all.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes renames and removals last through a crash.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync(&self) -> io::Result<()>;

    /// Waits until nobody else holds the lock of this directory, and holds it until this value is dropped.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn lock(&self) -> io::Result<()>;

    /// As [`lock`](Self::lock) if that needs no wait; whether it is held.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn try_lock(&self) -> io::Result<bool>;
}
