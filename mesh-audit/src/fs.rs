//! The file system as the log sees it: one file, appended to.

use std::fs;
use std::io;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// Opens the file of a log. A parameter, so that tests can fail and record every operation.
pub trait FileSystem {
    /// Opens `path` for reading from its start and writing at its end, and creates it, and the folders above it,
    /// when they are missing. When this returns, the name of the file is on stable storage.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
}

/// An open file. Every call blocks.
pub trait File: Send {
    /// Takes the exclusive lock on the file, which lasts until the file is closed, also by a
    /// crash; `false` when another holds it.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn try_lock(&mut self) -> io::Result<bool>;

    /// Reads on from where the last read ended.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes at the end of the file and returns how much was taken.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns once all that was written, and the length, is on stable storage.
    ///
    /// # Errors
    ///
    /// Those of the operating system. What was written since the last success is then in an
    /// unknown state, and calling again proves nothing.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The file system of the operating system.
///
/// New files are readable and writable by their owner only (mode 0600), new folders likewise
/// (0700). The lock is `flock` on Unix: advisory, so it keeps out other logs, not other programs.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "it stands for the one operating system and is complete by nature"
)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let folder = folder_of(path);
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
            .collect();
        create_folders(folder)?;
        let mut options = fs::OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        // A new name is on stable storage only once its folder was synced.
        sync_folder(folder)?;
        for created in missing {
            sync_folder(folder_of(created))?;
        }
        Ok(Box::new(OsFile(file)))
    }
}

struct OsFile(fs::File);

impl File for OsFile {
    fn try_lock(&mut self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // fdatasync also writes a changed length; only times are left out.
        self.0.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn create_folders(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        fs::File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}
