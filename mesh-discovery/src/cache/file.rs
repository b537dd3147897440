//! A cache in a file.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::cache::CacheError;
use crate::cache::CacheStorage;

/// A file that only we write: of mode 0600, replaced as a whole, and synced with its folder before it counts as written.
/// One file is for one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStorage {
    path: PathBuf,
}

impl FileStorage {
    /// The file at `path`, which need not be there; its folder must be.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<Option<File>> {
        // Neither a link to elsewhere nor a pipe that never ends.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&self.path);
        match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn read(&self, source: io::Error) -> CacheError {
        CacheError::Read {
            path: self.path.clone(),
            source,
        }
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        let folder = self.path.parent().filter(|one| !one.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl CacheStorage for FileStorage {
    fn load(&self, limit: usize) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(file) = self.open().map_err(|source| self.read(source))? else {
            return Ok(None);
        };
        // Of the file that is open, not of whatever has its name by now.
        let facts = file.metadata().map_err(|source| self.read(source))?;
        let own = rustix::process::geteuid().as_raw();
        let exposed = exposure(facts.uid() == own, facts.mode());
        if let Some(why) = exposed.or((!facts.is_file()).then_some("is not a file")) {
            return Err(CacheError::Unsafe {
                path: self.path.clone(),
                why,
            });
        }
        let mut bytes = Vec::new();
        let longest = u64::try_from(limit).unwrap_or(u64::MAX);
        let read = file.take(longest.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| self.read(source))?;
        if bytes.len() > limit {
            return Err(CacheError::TooLarge { limit });
        }
        Ok(Some(bytes))
    }

    fn store(&self, bytes: &[u8]) -> Result<(), CacheError> {
        self.replace(bytes).map_err(|source| CacheError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// Why somebody else could have written a file.
fn exposure(is_ours: bool, mode: u32) -> Option<&'static str> {
    if !is_ours {
        Some("belongs to another user")
    } else if mode & 0o022 != 0 {
        Some("can be written by others")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    // threat 50
    #[test]
    fn a_file_that_others_could_have_written_is_refused() {
        assert_eq!(exposure(true, 0o100_600), None);
        assert_eq!(exposure(true, 0o100_644), None);
        assert_eq!(exposure(true, 0o100_620), Some("can be written by others"));
        assert_eq!(exposure(true, 0o100_602), Some("can be written by others"));
        assert_eq!(exposure(false, 0o100_600), Some("belongs to another user"));
    }

    #[test]
    fn is_written_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let storage = FileStorage::new(&path);
        assert_eq!(storage.load(9).unwrap(), None);
        fs::write(
            folder.path().join("cache.new"),
            "left by one that was killed",
        )
        .unwrap();
        storage.store(b"one").unwrap();
        storage.store(b"two").unwrap();
        assert_eq!(storage.load(3).unwrap().unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(
            storage.load(2),
            Err(CacheError::TooLarge { limit: 2 })
        ));
    }

    #[test]
    fn links_folders_and_files_that_others_write_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        FileStorage::new(&path).store(b"one").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            FileStorage::new(link).load(9),
            Err(CacheError::Read { .. })
        ));
        let of_folder = FileStorage::new(folder.path()).load(9);
        assert!(matches!(of_folder, Err(CacheError::Unsafe { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(
            FileStorage::new(&path).load(9),
            Err(CacheError::Unsafe { .. })
        ));
        let nowhere = FileStorage::new(folder.path().join("not-there/cache"));
        assert!(matches!(
            nowhere.store(b"one"),
            Err(CacheError::Write { .. })
        ));
    }
}
