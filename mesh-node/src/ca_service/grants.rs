//! The join tokens of an authority: one file a token, `join/<hash>` in its folder, used up by renaming before any
//! certificate is signed for it.
//!
//! Whoever changes something holds the lock of the folder, so a token is used by one key, however many try at once, and
//! in however many processes. What was used stays written down until the token ends.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_auth::ca::join::Grant;
use mesh_auth::ca::join::JoinError;
use mesh_auth::ca::join::JoinToken;
use mesh_auth::spiffe::SpiffeId;
use mesh_crypto::keystore::Directory;
use mesh_crypto::keystore::FileSystem;
use mesh_crypto::keystore::OsFileSystem;

/// The grants of one authority.
#[derive(Clone, Debug)]
pub(crate) struct Grants {
    path: PathBuf,
    files: Arc<dyn FileSystem>,
}

/// Why nobody joins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GrantsError {
    #[error("nobody may join with this token")]
    Refused(#[source] JoinError),
    #[error("this token was never made, or its time is long over")]
    Unknown,
    #[error("there are {MOST} join tokens already; wait until some have ended")]
    TooMany,
    #[error("could not read or write {path}")]
    Io { path: PathBuf, source: io::Error },
}

impl Grants {
    /// The grants of the authority in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self::on(folder, Arc::new(OsFileSystem::new()))
    }

    pub(crate) fn on(folder: &Path, files: Arc<dyn FileSystem>) -> Self {
        Self {
            path: folder.join("join"),
            files,
        }
    }

    /// Remembers a grant of `token`. Blocks.
    pub(crate) fn add(
        &self,
        token: &JoinToken,
        grant: &Grant,
        now: SystemTime,
    ) -> Result<(), GrantsError> {
        match self.files.create_private_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(self.io(error));
            }
            _ => {}
        }
        let dir = self.lock()?;
        let kept = self.sweep_in(&*dir, now)?;
        if kept >= MOST {
            return Err(GrantsError::TooMany);
        }
        self.write(&*dir, &token.digest(), grant)
    }

    /// Who may have a certificate for `key`, which came with `token`; from here on the token is that key's. Blocks.
    pub(crate) fn take(
        &self,
        token: &JoinToken,
        key: &str,
        now: SystemTime,
    ) -> Result<SpiffeId, GrantsError> {
        let dir = self.lock().map_err(|error| match error {
            // No token was ever made.
            GrantsError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                GrantsError::Unknown
            }
            error => error,
        })?;
        let name = token.digest();
        let grant = self.read(&*dir, &name)?.ok_or(GrantsError::Unknown)?;
        let is_first = grant.used_by.is_none();
        let used = grant.used(key, now).map_err(GrantsError::Refused)?;
        if is_first {
            self.write(&*dir, &name, &used)?;
        } else {
            // It may be that the first time the name did not get to the disk.
            dir.sync().map_err(|error| self.io(error))?;
        }
        Ok(used.id)
    }

    /// Forgets what has ended, and gives what is left. Blocks.
    pub(crate) fn list(&self, now: SystemTime) -> Result<Vec<Grant>, GrantsError> {
        let dir = match self.lock() {
            Err(GrantsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            dir => dir?,
        };
        self.sweep_in(&*dir, now)?;
        let names = dir.names(MOST_FILES).map_err(|error| self.io(error))?;
        let names = names.iter().filter_map(|name| name.to_str());
        let mut grants = Vec::new();
        for name in names.filter(|name| is_digest(name)) {
            grants.extend(self.read(&*dir, name)?);
        }
        grants.sort_by(|one, other| (one.expires, &one.id).cmp(&(other.expires, &other.id)));
        Ok(grants)
    }

    fn lock(&self) -> Result<Box<dyn Directory>, GrantsError> {
        let dir = self
            .files
            .open_dir(&self.path)
            .map_err(|error| self.io(error))?;
        dir.lock().map_err(|error| self.io(error))?;
        Ok(dir)
    }

    /// Removes what has ended or was left half-written; how many there are still.
    fn sweep_in(&self, dir: &dyn Directory, now: SystemTime) -> Result<usize, GrantsError> {
        let names = dir.names(MOST_FILES).map_err(|error| self.io(error))?;
        let mut kept = 0;
        for name in names {
            let Some(name) = name.to_str() else { continue };
            let is_over = if is_digest(name) {
                let grant = self.read(dir, name)?;
                grant.is_none_or(|grant| grant.is_expired(now))
            } else {
                name.ends_with(NEW)
            };
            if is_over {
                dir.remove(name).map_err(|error| self.io(error))?;
            } else {
                kept += 1;
            }
        }
        Ok(kept)
    }

    fn read(&self, dir: &dyn Directory, name: &str) -> Result<Option<Grant>, GrantsError> {
        match dir.read(name, LONGEST) {
            Ok((_, bytes)) => {
                let text = std::str::from_utf8(bytes.expose()).unwrap_or_default();
                Grant::parse(text).map(Some).map_err(GrantsError::Refused)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(error)),
        }
    }

    fn write(&self, dir: &dyn Directory, name: &str, grant: &Grant) -> Result<(), GrantsError> {
        let new = format!("{name}{NEW}");
        let write = || {
            match dir.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            dir.write_private(&new, grant.to_string().as_bytes())?;
            dir.rename(&new, name)?;
            dir.sync()
        };
        write().map_err(|error| self.io(error))
    }

    fn io(&self, source: io::Error) -> GrantsError {
        GrantsError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Tokens that have not ended; each is a file of some hundred bytes.
const MOST: usize = 10_000;
/// What a crash may have left half-written is there as well.
const MOST_FILES: usize = 2 * MOST + 16;
/// An id has at most 2,048 bytes.
const LONGEST: u64 = 4096;
const NEW: &str = ".new";

#[cfg(test)]
mod tests;
