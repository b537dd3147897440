//! The file system of the machine.
//!
//! # Sources
//!
//! POSIX.1-2024 `openat`, `renameat`, `fsync`; `open(2)` of Linux on `O_NOFOLLOW` and `O_NONBLOCK`; `flock(2)`.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Dir;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::Directory;
use super::FileInfo;
use super::FileKind;
use super::FileSystem;
use crate::Secret;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OsFileSystem;

impl OsFileSystem {
    /// The file system; it holds no state of its own.
    pub const fn new() -> Self {
        Self
    }
}

impl FileSystem for OsFileSystem {
    fn user(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Box::new(OsDirectory(fd))),
            // What a link is answered with differs from system to system.
            Err(Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        read(
            File::from(rustix::fs::openat(CWD, path, READ, Mode::empty())?),
            max_bytes,
        )
    }
}

#[derive(Debug)]
struct OsDirectory(OwnedFd);

impl Directory for OsDirectory {
    fn info(&self) -> io::Result<FileInfo> {
        info(&File::from(self.0.try_clone()?))
    }

    fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() == max {
                return Err(too_much("there are too many files in it"));
            }
            names.push(OsStr::from_bytes(name).to_os_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        match rustix::fs::openat(&self.0, name, READ | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => read(File::from(fd), max_bytes),
            Err(Errno::LOOP) => {
                let stat = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let link = FileInfo::new(FileKind::Other, 0, stat.st_uid);
                Ok((link, Secret::new(Vec::new())))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.0, name, flags, mode)?);
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn lock(&self) -> io::Result<()> {
        loop {
            match rustix::fs::flock(&self.0, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the file is and all of it; what is not a regular file is not read.
fn read(mut file: File, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
    let info = info(&file)?;
    if info.kind != FileKind::File {
        return Ok((info, Secret::new(Vec::new())));
    }
    let len = file.metadata()?.len();
    if len > max_bytes {
        return Err(too_much("it is too long for what it should be"));
    }
    // Full size from the start, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(len).unwrap_or(0)]);
    file.read_exact(&mut bytes)?;
    Ok((info, Secret::from_slice(&bytes)))
}

fn info(file: &File) -> io::Result<FileInfo> {
    let metadata = file.metadata()?;
    let kind = if metadata.is_file() {
        FileKind::File
    } else if metadata.is_dir() {
        FileKind::Dir
    } else {
        FileKind::Other
    };
    Ok(FileInfo::new(
        kind,
        metadata.mode() & 0o7777,
        metadata.uid(),
    ))
}

fn too_much(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Without waiting: opening a pipe would wait for a writer.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
