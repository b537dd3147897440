//! Identity keys on disk: a directory of PKCS#8 files that nobody but their owner can read.
//!
//! A key file is written under a temporary name, synced, renamed and the directory synced, so that a crash leaves the
//! old keys or the old keys and the new one, never half a key. Files are mode 0600 in a directory of mode 0700; a file
//! or directory that group or others can reach, or that belongs to somebody else than us or root, is refused, not
//! repaired, because what was reachable may have been read. Everything is opened first and then looked at, without
//! following links, so that what was checked is what is read.
//!
//! Keys rotate: the newest is current, older ones stay readable for an overlap ([`KeyState`]) and are deleted by
//! [`KeyStore::retire`]. Deleting overwrites nothing: on flash and on file systems that copy on write an overwrite
//! reaches other blocks than those that held the key. Where that matters, encrypt the disk, or the keys:
//! with the feature `encrypted-keys`, `KeyStore::with_passphrase` does.

mod file_system;
mod lifetime;
mod name;
#[cfg(unix)]
mod os;
#[cfg(feature = "encrypted-keys")]
mod passphrase;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use file_system::Directory;
pub use file_system::FileInfo;
pub use file_system::FileKind;
pub use file_system::FileSystem;
pub use lifetime::KeyInfo;
pub use lifetime::KeySet;
pub use lifetime::KeyState;
pub use lifetime::PreviousKey;
#[cfg(unix)]
pub use os::OsFileSystem;

use self::name::Name;
use crate::Engine;
use crate::Error;
use crate::Fingerprint;
#[cfg(feature = "encrypted-keys")]
use crate::Random;
use crate::RsaBits;
use crate::RsaKeyPair;
use crate::Secret;
use crate::pem;

/// A directory of identity keys.
///
/// Several processes may use one directory: who writes to it holds its lock.
#[derive(Debug)]
pub struct KeyStore {
    files: Arc<dyn FileSystem>,
    dir: PathBuf,
    protection: Option<Box<dyn Protection>>,
}

impl KeyStore {
    /// Opens the directory, and makes it (mode 0700) if it is not there; its parent must be. What a crash left half
    /// written is removed.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if it cannot be made or looked at, [`Error::StoreEntry`] if it is not a directory,
    /// [`Error::Exposed`] if group or others have rights to it, [`Error::Owner`] if it is neither ours nor root's.
    pub fn open(files: Arc<dyn FileSystem>, dir: &Path) -> Result<Self, Error> {
        let store = Self {
            files,
            dir: dir.to_path_buf(),
            protection: None,
        };
        match store.directory() {
            Ok(open) => sweep(&*open),
            Err(Error::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                match store.files.create_private_dir(dir) {
                    // Another process was faster.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(failed("make the key directory", dir))?,
                }
                store.directory()?;
            }
            Err(error) => return Err(error),
        }
        Ok(store)
    }

    /// Encrypts the keys that are made from now on, and decrypts those that are there: PKCS#8 with PBES2,
    /// PBKDF2-HMAC-SHA256 of 600,000 iterations and AES-256-CBC, as `openssl pkcs8` reads and writes it. What was
    /// encrypted with another count, AES key size or with scrypt is read too, within ten million iterations and 256
    /// MiB. `random` gives salts and IVs.
    ///
    /// Each key that is read or written costs a fifth of a second or so. A key that is not encrypted is refused from
    /// now on: whoever sets a passphrase shall hear of a key that it does not protect.
    #[cfg(feature = "encrypted-keys")]
    #[must_use]
    pub fn with_passphrase(self, passphrase: Secret, random: Arc<dyn Random>) -> Self {
        Self {
            protection: Some(Box::new(passphrase::Passphrase::new(passphrase, random))),
            ..self
        }
    }

    /// The newest key, or a fresh one of `bits` made at `now` (seconds since 1970) if there is none.
    ///
    /// An existing key is used whatever its size. At 4096 bits a fresh one takes about a second.
    ///
    /// # Errors
    ///
    /// As [`newest`](Self::newest) and [`generate`](Self::generate).
    pub fn load_or_generate(
        &self,
        engine: &dyn Engine,
        bits: RsaBits,
        now: u64,
    ) -> Result<RsaKeyPair, Error> {
        if let Some(key) = self.newest(engine)? {
            return Ok(key);
        }
        let key = engine.generate_rsa(bits)?;
        let (dir, names) = self.locked()?;
        match names.last() {
            // Another process was faster; two that start at once are to have one key.
            Some(name) => self.load(&*dir, engine, name),
            None => {
                self.write(&*dir, &names, &key, now)?;
                Ok(key)
            }
        }
    }

    /// Makes a key of `bits`, dated `now` (seconds since 1970), and stores it; it is the newest from then on if its
    /// date is the latest.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] if generation fails, [`Error::Store`] if it cannot be written, and then it is not there;
    /// [`Error::StoreEntry`] if the directory holds 1,000 keys already, or `now` is after the year 9999.
    pub fn generate(
        &self,
        engine: &dyn Engine,
        bits: RsaBits,
        now: u64,
    ) -> Result<RsaKeyPair, Error> {
        self.add(engine, bits, |_| now)
    }

    /// Makes a key of `bits` that is newer than all others: dated `now` (seconds since 1970), or a second after the
    /// newest if the clock was set back. The others stay readable; [`retire`](Self::retire) deletes them in time.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate).
    pub fn rotate(
        &self,
        engine: &dyn Engine,
        bits: RsaBits,
        now: u64,
    ) -> Result<RsaKeyPair, Error> {
        self.add(engine, bits, |newest| lifetime::date_after(newest, now))
    }

    /// Deletes the keys that were replaced `overlap` or longer before `now` (seconds since 1970), and says which. The
    /// newest is never deleted, and nothing is if the newest cannot be read.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if a file cannot be removed, and what [`newest`](Self::newest) gives. What was removed before
    /// an error stays so.
    pub fn retire(
        &self,
        engine: &dyn Engine,
        overlap: Duration,
        now: u64,
    ) -> Result<Vec<Fingerprint>, Error> {
        let (dir, names) = self.locked()?;
        let Some(newest) = names.last() else {
            return Ok(Vec::new());
        };
        self.load(&*dir, engine, newest)?;
        let mut retired = Vec::new();
        for (name, replaced) in with_successors(&names) {
            if let KeyState::Over { .. } = lifetime::state(replaced, overlap, now) {
                let file = name.file();
                dir.remove(&file)
                    .map_err(failed("remove the key file", &self.dir.join(file)))?;
                retired.push(name.fingerprint);
            }
        }
        dir.sync()
            .map_err(failed("sync the key directory", &self.dir))?;
        Ok(retired)
    }

    /// The newest key, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the directory or the file cannot be read, [`Error::Exposed`] if others than the owner can
    /// reach it, [`Error::Owner`] if it is neither ours nor root's, [`Error::StoreEntry`] if it does not hold the key
    /// that its name says, [`Error::Encrypted`] if it needs a passphrase and [`Error::Passphrase`] if it needs another,
    /// and what [`RsaKeyPair::from_pkcs8_pem`] gives. Files with other names are left alone.
    pub fn newest(&self, engine: &dyn Engine) -> Result<Option<RsaKeyPair>, Error> {
        let dir = self.directory()?;
        let names = self.names(&*dir)?;
        names
            .last()
            .map(|name| self.load(&*dir, engine, name))
            .transpose()
    }

    /// When the newest key was made, in seconds since 1970, if there is one; no key is read for it.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the directory cannot be read, [`Error::Exposed`] and [`Error::Owner`] as for
    /// [`open`](Self::open).
    pub fn newest_created(&self) -> Result<Option<u64>, Error> {
        let names = self.names(&*self.directory()?)?;
        Ok(names.last().map(|name| name.created))
    }

    /// Where the keys lie.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The key with this fingerprint, if there is one, whatever its age.
    ///
    /// # Errors
    ///
    /// As [`newest`](Self::newest).
    pub fn find(
        &self,
        engine: &dyn Engine,
        fingerprint: Fingerprint,
    ) -> Result<Option<RsaKeyPair>, Error> {
        let dir = self.directory()?;
        let names = self.names(&*dir)?;
        names
            .iter()
            .find(|name| name.fingerprint == fingerprint)
            .map(|name| self.load(&*dir, engine, name))
            .transpose()
    }

    /// The newest key and those that were replaced less than `overlap` before `now` (seconds since 1970); `None` if
    /// there is no key at all.
    ///
    /// # Errors
    ///
    /// As [`newest`](Self::newest).
    pub fn load_all(
        &self,
        engine: &dyn Engine,
        overlap: Duration,
        now: u64,
    ) -> Result<Option<KeySet>, Error> {
        let dir = self.directory()?;
        let names = self.names(&*dir)?;
        let Some(newest) = names.last() else {
            return Ok(None);
        };
        let mut keys = KeySet {
            current: self.load(&*dir, engine, newest)?,
            previous: Vec::new(),
        };
        for (name, replaced) in with_successors(&names).rev() {
            if let KeyState::Overlap { until } = lifetime::state(replaced, overlap, now) {
                match unless_gone(self.load(&*dir, engine, name))? {
                    Some(key) => keys.previous.push(PreviousKey { key, until }),
                    None => break,
                }
            }
        }
        Ok(Some(keys))
    }

    /// The keys, oldest first. Each file is read and checked.
    ///
    /// # Errors
    ///
    /// As [`newest`](Self::newest), for each of them.
    pub fn list(&self, engine: &dyn Engine) -> Result<Vec<KeyInfo>, Error> {
        let dir = self.directory()?;
        let names = self.names(&*dir)?;
        let mut list = Vec::new();
        for (name, replaced) in with_successors(&names) {
            if let Some(key) = unless_gone(self.load(&*dir, engine, name))? {
                list.push(KeyInfo {
                    fingerprint: key.public().fingerprint(),
                    bits: key.public().bits(),
                    created: name.created,
                    replaced,
                });
            }
        }
        Ok(list)
    }

    /// Makes a key, dated by what `date` makes of the date of the newest.
    fn add(
        &self,
        engine: &dyn Engine,
        bits: RsaBits,
        date: impl FnOnce(Option<u64>) -> u64,
    ) -> Result<RsaKeyPair, Error> {
        // Before the second or so that a key takes.
        self.directory()?;
        let key = engine.generate_rsa(bits)?;
        let (dir, names) = self.locked()?;
        let created = date(names.last().map(|name| name.created));
        self.write(&*dir, &names, &key, created)?;
        Ok(key)
    }

    /// Stores a key in the directory, whose lock we hold.
    fn write(
        &self,
        dir: &dyn Directory,
        names: &[Name],
        key: &RsaKeyPair,
        created: u64,
    ) -> Result<(), Error> {
        let full = |what| Error::StoreEntry {
            path: self.dir.clone(),
            what,
        };
        if names.len() >= MAX_KEYS {
            return Err(full("holds 1,000 keys already, retire old ones first"));
        }
        if created > name::LAST_DATE {
            return Err(full(
                "would hold a key dated after the year 9999, set the clock",
            ));
        }
        let name = Name {
            created,
            fingerprint: key.public().fingerprint(),
        };
        let plain = key.to_pkcs8_pem()?;
        let text = match &self.protection {
            None => plain,
            Some(protection) => {
                let der = pem::decode(pem::PRIVATE_KEY, plain.expose())?;
                pem::encode(pem::ENCRYPTED_KEY, protection.seal(&der)?.expose())
            }
        };
        let (file, temporary) = (name.file(), name.temporary());
        let written = dir
            .write_private(&temporary, text.expose())
            .and_then(|()| dir.rename(&temporary, &file))
            .and_then(|()| dir.sync());
        if let Err(source) = written {
            // Best effort: if this fails too, a later opening removes the one, and the other is a whole key.
            drop(dir.remove(&temporary));
            drop(dir.remove(&file));
            return Err(Error::Store {
                action: "write the key file",
                path: self.dir.join(file),
                source,
            });
        }
        Ok(())
    }

    fn load(
        &self,
        dir: &dyn Directory,
        engine: &dyn Engine,
        name: &Name,
    ) -> Result<RsaKeyPair, Error> {
        let file = name.file();
        let path = self.dir.join(&file);
        let (info, text) = dir
            .read(&file, MAX_FILE_BYTES)
            .map_err(failed("read the key file", &path))?;
        if info.kind != FileKind::File {
            return Err(Error::StoreEntry {
                path,
                what: "is not a regular file",
            });
        }
        refuse_reachable(&path, info, self.files.user())?;
        let key = self.parse(engine, &path, &text)?;
        if key.public().fingerprint() == name.fingerprint {
            Ok(key)
        } else {
            Err(Error::StoreEntry {
                path,
                what: "does not hold the key that its name says",
            })
        }
    }

    fn parse(&self, engine: &dyn Engine, path: &Path, text: &Secret) -> Result<RsaKeyPair, Error> {
        let is_encrypted = pem::is_of_kind(pem::ENCRYPTED_KEY, text.expose());
        let protection = match (&self.protection, is_encrypted) {
            (None, false) => return RsaKeyPair::from_pkcs8_pem(engine, text),
            (None, true) => {
                return Err(Error::Encrypted {
                    path: path.to_path_buf(),
                });
            }
            (Some(_), false) => {
                return Err(Error::StoreEntry {
                    path: path.to_path_buf(),
                    what: "is not encrypted although a passphrase is set, \
                           encrypt it (openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 600000) or set none",
                });
            }
            (Some(protection), true) => protection,
        };
        let wrong = || Error::Passphrase {
            path: path.to_path_buf(),
        };
        let der = pem::decode(pem::ENCRYPTED_KEY, text.expose())?;
        let der = protection.open(&der)?.ok_or_else(wrong)?;
        match engine.rsa_from_pkcs8(&der) {
            // One wrong passphrase in 256 leaves what looks like padding, and noise before it.
            Err(Error::KeyRejected { .. }) => Err(wrong()),
            other => other,
        }
    }

    /// The directory, opened and checked.
    fn directory(&self) -> Result<Box<dyn Directory>, Error> {
        let opened = self.files.open_dir(&self.dir);
        let dir = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(Error::StoreEntry {
                    path: self.dir.clone(),
                    what: "is not a directory",
                });
            }
            opened => opened.map_err(failed("open the key directory", &self.dir))?,
        };
        let info = dir
            .info()
            .map_err(failed("look at the key directory", &self.dir))?;
        refuse_reachable(&self.dir, info, self.files.user())?;
        Ok(dir)
    }

    /// The directory with its lock, which ends with it, and the keys in it.
    fn locked(&self) -> Result<(Box<dyn Directory>, Vec<Name>), Error> {
        let dir = self.directory()?;
        dir.lock()
            .map_err(failed("lock the key directory", &self.dir))?;
        let names = self.names(&*dir)?;
        Ok((dir, names))
    }

    /// The key files by name, oldest first.
    fn names(&self, dir: &dyn Directory) -> Result<Vec<Name>, Error> {
        let names = dir
            .names(MAX_ENTRIES)
            .map_err(failed("list the key directory", &self.dir))?;
        let mut names: Vec<_> = names
            .iter()
            .filter_map(|name| Name::parse(name.to_str()?))
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// How keys are encrypted on disk.
trait Protection: Send + Sync + Debug {
    /// PKCS#8 in DER, encrypted.
    fn seal(&self, der: &Secret) -> Result<Secret, Error>;
    /// The PKCS#8 in DER; `None` if the passphrase is another one.
    fn open(&self, der: &Secret) -> Result<Option<Secret>, Error>;
}

/// The passphrase in a file, without the end of its line: 1 to 1,024 bytes.
///
/// # Errors
///
/// [`Error::Store`] if the file cannot be read or is longer, [`Error::Exposed`] if group or others have rights to it,
/// [`Error::Owner`] if it is neither ours nor root's, [`Error::StoreEntry`] if it is empty or no regular file.
pub fn read_passphrase(files: &dyn FileSystem, path: &Path) -> Result<Secret, Error> {
    let (info, text) = files
        .read(path, MAX_PASSPHRASE_BYTES + 2)
        .map_err(failed("read the passphrase file", path))?;
    let wrong = |what| Error::StoreEntry {
        path: path.to_path_buf(),
        what,
    };
    if info.kind != FileKind::File {
        return Err(wrong("is not a regular file"));
    }
    refuse_reachable(path, info, files.user())?;
    let line = text.expose();
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(wrong("holds no passphrase"));
    }
    Ok(Secret::from_slice(line))
}

/// Removes what was never finished, unless somebody is at it; a directory that cannot be written is left as it is.
fn sweep(dir: &dyn Directory) {
    let Ok(names) = dir.names(MAX_ENTRIES) else {
        return;
    };
    let mut left = names
        .iter()
        .filter_map(|name| name.to_str())
        .filter(|name| Name::is_temporary(name))
        .peekable();
    if left.peek().is_some() && dir.try_lock().unwrap_or(false) {
        left.for_each(|name| drop(dir.remove(name)));
    }
}

/// Each key and when the next newer one was made.
fn with_successors(
    names: &[Name],
) -> impl DoubleEndedIterator<Item = (&Name, Option<u64>)> + ExactSizeIterator {
    names.iter().enumerate().map(|(at, name)| {
        let next = names.get(at + 1);
        (name, next.map(|next| next.created))
    })
}

/// `None` for a key that another process has deleted meanwhile.
fn unless_gone(loaded: Result<RsaKeyPair, Error>) -> Result<Option<RsaKeyPair>, Error> {
    match loaded {
        Err(Error::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn refuse_reachable(path: &Path, info: FileInfo, user: u32) -> Result<(), Error> {
    if info.owner != user && info.owner != ROOT {
        return Err(Error::Owner {
            path: path.to_path_buf(),
            owner: info.owner,
            user,
        });
    }
    if info.mode & GROUP_AND_OTHERS != 0 {
        return Err(Error::Exposed {
            path: path.to_path_buf(),
            mode: info.mode,
        });
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Store {
        action,
        path,
        source,
    }
}

const ROOT: u32 = 0;
const GROUP_AND_OTHERS: u32 = 0o077;
/// A PKCS#8 key of 4096 bits is 3.3 KB in PEM.
const MAX_FILE_BYTES: u64 = 16 * 1024;
const MAX_PASSPHRASE_BYTES: u64 = 1024;
/// Keys in one directory; six weeks of hourly rotation without ever retiring one.
const MAX_KEYS: usize = 1_000;
/// Files of any name in one directory.
const MAX_ENTRIES: usize = 4_096;
