//! A file system in memory that fails or stops at any call, and forgets in a crash what was not synced.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mesh_crypto::Secret;
use mesh_crypto::keystore::Directory;
use mesh_crypto::keystore::FileInfo;
use mesh_crypto::keystore::FileKind;
use mesh_crypto::keystore::FileSystem;
use parking_lot::Mutex;

/// The user that the tests act as.
pub(crate) const USER: u32 = 1_000;

/// What goes wrong, at which of the calls, counted from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None,
    /// This call fails, and later ones do not.
    Fails(usize),
    /// This call and all later ones fail: the process has gone. A write got as far as `written`.
    Stops {
        at: usize,
        written: Written,
    },
}

/// How far the last write of a process got.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Written {
    Nothing,
    Name,
    Half,
    /// Everything, but not synced.
    Unsynced,
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// Only the process went: what it wrote is there.
    OfTheProcess,
    /// The machine went: what was not synced is not there.
    OfTheMachine,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// Names and contents as they are, and as a crash of the machine leaves them.
#[derive(Clone, Debug, Default)]
struct Disk {
    exists: bool,
    files: Vec<Content>,
    now: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    calls: usize,
    dir_owner: u32,
    file_owner: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Memory {
    disk: Arc<Mutex<Disk>>,
    fault: Fault,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let disk = Disk {
            dir_owner: USER,
            file_owner: USER,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
            fault: Fault::None,
        }
    }

    /// A copy of its own that goes wrong from its next call on.
    pub(crate) fn copy_with(&self, fault: Fault) -> Self {
        let disk = Disk {
            calls: 0,
            ..self.disk.lock().clone()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
            fault,
        }
    }

    /// What is found after a crash.
    pub(crate) fn after(&self, crash: Crash) -> Self {
        let after = self.copy_with(Fault::None);
        if let Crash::OfTheMachine = crash {
            let mut disk = after.disk.lock();
            disk.now = disk.synced.clone();
            for file in &mut disk.files {
                file.now = file.synced.clone();
            }
        }
        after
    }

    /// How many calls were made.
    pub(crate) fn calls(&self) -> usize {
        self.disk.lock().calls
    }

    /// The names in the directory.
    pub(crate) fn names(&self) -> Vec<String> {
        self.disk.lock().now.keys().cloned().collect()
    }

    /// Puts a file there.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.with(|disk| disk.write(name, bytes, Some(bytes)))
            .unwrap();
    }

    /// Makes the directory somebody else's, or the files.
    pub(crate) fn give_away(&self, dir_owner: u32, file_owner: u32) {
        let mut disk = self.disk.lock();
        (disk.dir_owner, disk.file_owner) = (dir_owner, file_owner);
    }

    fn with<T>(&self, each: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        each(&mut self.disk.lock())
    }

    /// Counts the call, and refuses it if its time has come; a write that is cut short gets its part done.
    fn call(&self, write: Option<(&str, &[u8])>) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let this = disk.calls;
        disk.calls += 1;
        match self.fault {
            Fault::Fails(at) if at == this => {}
            Fault::Stops { at, .. } if at < this => {}
            Fault::Stops { at, written } if at == this => {
                if let Some((name, bytes)) = write {
                    match written {
                        Written::Nothing => {}
                        Written::Name => disk.write(name, &[], None)?,
                        Written::Half => disk.write(name, &bytes[..bytes.len() / 2], None)?,
                        Written::Unsynced => disk.write(name, bytes, None)?,
                    }
                }
            }
            _ => return Ok(()),
        }
        Err(io::Error::other("fault"))
    }
}

impl Disk {
    fn write(&mut self, name: &str, now: &[u8], synced: Option<&[u8]>) -> io::Result<()> {
        if self.now.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.files.push(Content {
            now: now.to_vec(),
            synced: synced.unwrap_or_default().to_vec(),
        });
        self.now.insert(name.to_owned(), self.files.len() - 1);
        Ok(())
    }

    fn take(&mut self, name: &str) -> io::Result<usize> {
        self.now
            .remove(name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl FileSystem for Memory {
    fn user(&self) -> u32 {
        USER
    }

    fn create_private_dir(&self, _path: &Path) -> io::Result<()> {
        self.call(None)?;
        self.with(|disk| {
            disk.exists = true;
            Ok(())
        })
    }

    fn open_dir(&self, _path: &Path) -> io::Result<Box<dyn Directory>> {
        self.call(None)?;
        if self.disk.lock().exists {
            Ok(Box::new(self.clone()))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        Directory::read(self, path.to_str().unwrap(), max_bytes)
    }
}

impl Directory for Memory {
    fn info(&self) -> io::Result<FileInfo> {
        self.call(None)?;
        self.with(|disk| Ok(FileInfo::new(FileKind::Dir, 0o700, disk.dir_owner)))
    }

    fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        self.call(None)?;
        let names: Vec<_> = self.names().into_iter().map(OsString::from).collect();
        assert!(names.len() <= max);
        Ok(names)
    }

    fn read(&self, name: &str, _max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        self.call(None)?;
        self.with(|disk| {
            let at = disk.now.get(name).ok_or(io::ErrorKind::NotFound)?;
            let info = FileInfo::new(FileKind::File, 0o600, disk.file_owner);
            Ok((info, Secret::from_slice(&disk.files[*at].now)))
        })
    }

    fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.call(Some((name, bytes)))?;
        self.with(|disk| disk.write(name, bytes, Some(bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(None)?;
        self.with(|disk| {
            let file = disk.take(from)?;
            disk.now.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(None)?;
        self.with(|disk| disk.take(name).map(|_| ()))
    }

    fn sync(&self) -> io::Result<()> {
        self.call(None)?;
        self.with(|disk| {
            disk.synced.clone_from(&disk.now);
            Ok(())
        })
    }

    fn lock(&self) -> io::Result<()> {
        self.call(None)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.call(None).map(|()| true)
    }
}
