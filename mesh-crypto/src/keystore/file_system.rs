//! What the key store needs of a file system, and the real one.

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

/// Kind and permission bits of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Its permission bits, as `0o600`.
    pub mode: u32,
}

impl FileInfo {
    /// An entry of this kind with these permission bits.
    pub const fn new(kind: FileKind, mode: u32) -> Self {
        Self { kind, mode }
    }
}

/// The few file system calls that the key store makes.
pub trait FileSystem: Send + Sync + Debug {
    /// Makes a directory of mode 0700; its parent exists.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn create_private_dir(&self, path: &Path) -> io::Result<()>;

    /// Kind and mode of the entry itself; a symbolic link is not followed.
    ///
    /// # Errors
    ///
    /// What the system says; `NotFound` if there is none.
    fn info(&self, path: &Path) -> io::Result<FileInfo>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn names(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Reads a file whole, with kind and mode of the very file that was read.
    ///
    /// # Errors
    ///
    /// What the system says; `InvalidData` if it is longer than `max_bytes`.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<(FileInfo, Secret)>;

    /// Makes a file of mode 0600 that was not there, with these bytes, and syncs it.
    ///
    /// # Errors
    ///
    /// What the system says; `AlreadyExists` if it was there.
    fn write_private(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Renames a file, replacing what is there, at once or not at all.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes renames in a directory last through a crash.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The file system of the machine.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OsFileSystem;

#[cfg(unix)]
impl OsFileSystem {
    /// The file system; it holds no state of its own.
    pub const fn new() -> Self {
        Self
    }
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsString;
    use std::fs;
    use std::fs::File;
    use std::fs::OpenOptions;
    use std::io;
    use std::io::Read as _;
    use std::io::Write as _;
    use std::os::unix::fs::DirBuilderExt as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use zeroize::Zeroizing;

    use super::FileInfo;
    use super::FileKind;
    use super::FileSystem;
    use super::OsFileSystem;
    use crate::Secret;

    impl FileSystem for OsFileSystem {
        fn create_private_dir(&self, path: &Path) -> io::Result<()> {
            fs::DirBuilder::new().mode(0o700).create(path)
        }

        fn info(&self, path: &Path) -> io::Result<FileInfo> {
            Ok(info(&fs::symlink_metadata(path)?))
        }

        fn names(&self, dir: &Path) -> io::Result<Vec<OsString>> {
            fs::read_dir(dir)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect()
        }

        fn read(&self, path: &Path, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
            let entry = self.info(path)?;
            if entry.kind != FileKind::File {
                // Opening a pipe would wait for a writer.
                return Ok((entry, Secret::new(Vec::new())));
            }
            let mut file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.len() > max_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the file is too long for a key",
                ));
            }
            // Full size from the start, so that growing leaves no copy behind.
            let len = usize::try_from(metadata.len()).unwrap_or(0);
            let mut bytes = Zeroizing::new(vec![0; len]);
            file.read_exact(&mut bytes)?;
            Ok((info(&metadata), Secret::from_slice(&bytes)))
        }

        fn write_private(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            fs::rename(from, to)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            File::open(dir)?.sync_all()
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            fs::remove_file(path)
        }
    }

    fn info(metadata: &fs::Metadata) -> FileInfo {
        let kind = if metadata.is_file() {
            FileKind::File
        } else if metadata.is_dir() {
            FileKind::Dir
        } else {
            FileKind::Other
        };
        FileInfo::new(kind, metadata.permissions().mode() & 0o7777)
    }
}
