//! Identity keys on disk: a directory of PKCS#8 files that nobody but their owner can read.
//!
//! A key file is written under a temporary name, synced, renamed and the directory synced, so that a crash leaves the
//! old keys or the old keys and the new one, never half a key. Files are mode 0600 in a directory of mode 0700; a file
//! or directory that group or others can reach is refused, not repaired, because what was readable may have been read.

mod file_system;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

pub use file_system::FileInfo;
pub use file_system::FileKind;
pub use file_system::FileSystem;
#[cfg(unix)]
pub use file_system::OsFileSystem;

use crate::Engine;
use crate::Error;
use crate::Fingerprint;
use crate::RsaBits;
use crate::RsaKeyPair;
use crate::hex;

/// A directory of identity keys.
#[derive(Debug)]
pub struct KeyStore {
    files: Arc<dyn FileSystem>,
    dir: PathBuf,
}

/// One key of the store, without its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Which key it is.
    pub fingerprint: Fingerprint,
    /// Its size.
    pub bits: RsaBits,
    /// When it was made, in seconds since 1970 (UTC).
    pub created: u64,
}

impl KeyStore {
    /// Opens the directory, and makes it (mode 0700) if it is not there; its parent must be.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if it cannot be made or looked at, [`Error::StoreEntry`] if it is not a directory,
    /// [`Error::Exposed`] if group or others have rights to it.
    pub fn open(files: Arc<dyn FileSystem>, dir: &Path) -> Result<Self, Error> {
        let store = Self {
            files,
            dir: dir.to_path_buf(),
        };
        match store.check_dir() {
            Err(Error::Store { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                store
                    .files
                    .create_private_dir(dir)
                    .map_err(failed("make the key directory", dir))?;
                store.check_dir()?;
            }
            other => other?,
        }
        Ok(store)
    }

    /// The newest key, or a fresh one of `bits` made at `now` (seconds since 1970) if there is none.
    ///
    /// An existing key is used whatever its size. At 4096 bits a fresh one takes about a second.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list) and [`generate`](Self::generate).
    pub fn load_or_generate(
        &self,
        engine: &dyn Engine,
        bits: RsaBits,
        now: u64,
    ) -> Result<RsaKeyPair, Error> {
        match self.names()?.pop() {
            Some(name) => self.load(engine, &name),
            None => self.generate(engine, bits, now),
        }
    }

    /// Makes a key of `bits`, dated `now` (seconds since 1970), and stores it; it is the newest from then on if its
    /// date is the latest.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] if generation fails, [`Error::Store`] if it cannot be written; no half-written key is left
    /// under a key's name.
    pub fn generate(
        &self,
        engine: &dyn Engine,
        bits: RsaBits,
        now: u64,
    ) -> Result<RsaKeyPair, Error> {
        self.check_dir()?;
        let key = engine.generate_rsa(bits)?;
        let name = Name {
            created: now,
            fingerprint: key.public().fingerprint(),
        };
        let (path, temporary) = (
            self.dir.join(name.file()),
            self.dir.join(format!(".{}.new", name.file())),
        );
        let pem = key.to_pkcs8_pem()?;
        let written = self
            .files
            .write_private(&temporary, pem.expose())
            .and_then(|()| self.files.rename(&temporary, &path))
            .and_then(|()| self.files.sync_dir(&self.dir));
        if let Err(source) = written {
            // Best effort: what is left is private and its name is not a key's.
            drop(self.files.remove(&temporary));
            return Err(Error::Store {
                action: "write the key file",
                path,
                source,
            });
        }
        Ok(key)
    }

    /// The keys, oldest first. Each file is read and checked.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the directory or a file cannot be read, [`Error::Exposed`] if others than the owner can
    /// reach one, [`Error::StoreEntry`] if one does not hold the key that its name says, and what
    /// [`RsaKeyPair::from_pkcs8_pem`] gives. Files with other names are left alone.
    pub fn list(&self, engine: &dyn Engine) -> Result<Vec<KeyInfo>, Error> {
        let info = |name: Name| {
            let public = self.load(engine, &name)?.public().clone();
            Ok(KeyInfo {
                fingerprint: public.fingerprint(),
                bits: public.bits(),
                created: name.created,
            })
        };
        self.names()?.into_iter().map(info).collect()
    }

    fn load(&self, engine: &dyn Engine, name: &Name) -> Result<RsaKeyPair, Error> {
        let path = self.dir.join(name.file());
        let wrong = |what| Error::StoreEntry {
            path: path.clone(),
            what,
        };
        let (info, text) = self
            .files
            .read(&path, MAX_FILE_BYTES)
            .map_err(failed("read the key file", &path))?;
        if info.kind != FileKind::File {
            return Err(wrong("is not a regular file"));
        }
        refuse_exposed(&path, info)?;
        let key = RsaKeyPair::from_pkcs8_pem(engine, &text)?;
        if key.public().fingerprint() == name.fingerprint {
            Ok(key)
        } else {
            Err(wrong("does not hold the key that its name says"))
        }
    }

    /// The key files by name, oldest first.
    fn names(&self) -> Result<Vec<Name>, Error> {
        self.check_dir()?;
        let names = self
            .files
            .names(&self.dir)
            .map_err(failed("list the key directory", &self.dir))?;
        let mut names: Vec<_> = names
            .iter()
            .filter_map(|name| Name::parse(name.to_str()?))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn check_dir(&self) -> Result<(), Error> {
        let info = self
            .files
            .info(&self.dir)
            .map_err(failed("look at the key directory", &self.dir))?;
        if info.kind != FileKind::Dir {
            return Err(Error::StoreEntry {
                path: self.dir.clone(),
                what: "is not a directory",
            });
        }
        refuse_exposed(&self.dir, info)
    }
}

/// `rsa-<created>-<fingerprint>.pem`, the date in seconds and twenty digits so that names sort by age.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Name {
    created: u64,
    fingerprint: Fingerprint,
}

impl Name {
    fn file(&self) -> String {
        let mut out = format!("rsa-{:020}-", self.created);
        // Writing to a string does not fail.
        hex::write(&mut out, self.fingerprint.as_bytes()).unwrap_or_default();
        out.push_str(".pem");
        out
    }

    fn parse(name: &str) -> Option<Self> {
        let (created, fingerprint) = name
            .strip_prefix("rsa-")?
            .strip_suffix(".pem")?
            .split_once('-')?;
        let fingerprint: [u8; 32] = hex::decode(fingerprint)?.try_into().ok()?;
        let parsed = Self {
            created: created.parse().ok()?,
            fingerprint: Fingerprint::from_bytes(fingerprint),
        };
        (parsed.file() == name).then_some(parsed)
    }
}

fn refuse_exposed(path: &Path, info: FileInfo) -> Result<(), Error> {
    if info.mode & GROUP_AND_OTHERS == 0 {
        Ok(())
    } else {
        Err(Error::Exposed {
            path: path.to_path_buf(),
            mode: info.mode,
        })
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Store {
        action,
        path,
        source,
    }
}

const GROUP_AND_OTHERS: u32 = 0o077;
/// A PKCS#8 key of 4096 bits is 3.3 KB in PEM.
const MAX_FILE_BYTES: u64 = 16 * 1024;
