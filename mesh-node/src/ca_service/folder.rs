//! The folder of an authority: `ca.crt` with every trusted root, the signer's first; `ca.key` with their keys; `ca.json`
//! with how far the replacement of a root has come, and until when certificates live that each root signed.
//!
//! Whoever changes something holds the folder's lock, so that the server and commands may run side by side. Each file is
//! replaced whole, by renaming, and in an order that a crash between two of them does no harm: keys before the
//! certificates that need them, and what was promised before it is relied on.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::ca::roots::RootSet;
use mesh_auth::ca::roots::RootsError;
use mesh_crypto::keystore::Directory;
use mesh_crypto::keystore::FileSystem;
use mesh_crypto::keystore::OsFileSystem;
use serde::Deserialize;
use serde::Serialize;

use crate::ca_service::denied::Denied;
use crate::ca_service::denied::NobodyDenied;

/// Where an authority lives.
#[derive(Clone, Debug)]
pub(crate) struct CaFolder {
    path: PathBuf,
    files: Arc<dyn FileSystem>,
}

/// The folder while nobody else changes it.
#[derive(Debug)]
pub(crate) struct Locked {
    path: PathBuf,
    user: u32,
    dir: Box<dyn Directory>,
}

/// What a folder can't give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FolderError {
    #[error("could not read or write {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not its owner's alone; others could sign with it (chmod 600)")]
    Exposed { path: PathBuf },
    #[error("{path} is not text")]
    Text { path: PathBuf },
    #[error("{path} is damaged")]
    State {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the certificate authority in {path} is not usable")]
    Roots { path: PathBuf, source: RootsError },
    #[error("{path} can't be used")]
    Denied { path: PathBuf, source: NobodyDenied },
    #[error("the signer was replaced in the meantime")]
    Replaced,
    #[error("{0}")]
    Order(String),
}

/// Where a root stands in its replacement.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// It signs.
    Signs,
    /// It will sign; nodes learn to trust it.
    Next,
    /// It has signed; what it signed lives on.
    Former,
}

/// `ca.json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// By root, the last second (UTC, since 1970) in which a certificate that it signed can be valid. Of a root that is
    /// missing nobody knows, so it counts as long as the root itself is valid.
    #[serde(default)]
    last_leaf: BTreeMap<String, u64>,
    /// The root that is to sign next, and since when it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Step>,
    /// The last root that began to sign, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activated: Option<Step>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Step {
    root: String,
    at: u64,
}

impl CaFolder {
    /// The authority in `path`, on the machine's file system.
    pub(crate) fn new(path: &Path) -> Self {
        Self::on(path, Arc::new(OsFileSystem::new()))
    }

    pub(crate) fn on(path: &Path, files: Arc<dyn FileSystem>) -> Self {
        Self {
            path: path.to_owned(),
            files,
        }
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files that say which roots there are, and who gets no certificate any more.
    pub(crate) fn watched_files(&self) -> [PathBuf; 3] {
        [CERTIFICATES, KEYS, DENIED].map(|name| self.path.join(name))
    }

    /// Waits until nobody else changes the folder. Blocks.
    pub(crate) fn lock(&self) -> Result<Locked, FolderError> {
        let failed = |source| FolderError::Io {
            path: self.path.clone(),
            source,
        };
        let dir = self.files.open_dir(&self.path).map_err(failed)?;
        dir.lock().map_err(failed)?;
        Ok(Locked {
            path: self.path.clone(),
            user: self.files.user(),
            dir,
        })
    }
}

impl Locked {
    /// Every root, the signer first.
    pub(crate) fn roots(&self) -> Result<RootSet, FolderError> {
        let certificates = self.text(CERTIFICATES, Privacy::Public)?;
        let keys = self.text(KEYS, Privacy::Private)?;
        RootSet::from_pem(&certificates, &keys).map_err(|source| FolderError::Roots {
            path: self.path.clone(),
            source,
        })
    }

    /// Who gets no certificate any more: nobody, where there is no such file.
    pub(crate) fn denied(&self) -> Result<Denied, FolderError> {
        let text = match self.text(DENIED, Privacy::Public) {
            Err(FolderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Denied::default());
            }
            text => text?,
        };
        Denied::parse(&text).map_err(|source| FolderError::Denied {
            path: self.path.join(DENIED),
            source,
        })
    }

    /// How far replacements have come.
    pub(crate) fn state(&self) -> Result<State, FolderError> {
        let text = match self.text(STATE, Privacy::Public) {
            Err(FolderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(State::default());
            }
            text => text?,
        };
        serde_json::from_str(&text).map_err(|source| FolderError::State {
            path: self.path.join(STATE),
            source,
        })
    }

    /// Remembers that `root` signs and has signed nothing yet.
    pub(crate) fn begin(&self, root: &Authority) -> Result<(), FolderError> {
        let mut state = State::default();
        state.know(root);
        self.put_state(&state)
    }

    /// Promises that the signer, which is `root`, signs nothing that lives longer than `end`.
    pub(crate) fn promise(&self, root: &str, end: SystemTime) -> Result<(), FolderError> {
        if self.roots()?.signer().facts().fingerprint != root {
            return Err(FolderError::Replaced);
        }
        let mut state = self.state()?;
        // Of a root that nobody kept book of, a promise would say too little.
        if let Some(last) = state.last_leaf.get_mut(root) {
            let wanted = seconds(end);
            if wanted > *last {
                *last = wanted;
                self.put_state(&state)?;
            }
        }
        Ok(())
    }

    /// Trusts `next` beside the signer. `now` is when that began.
    pub(crate) fn prepare(&self, next: Authority, now: SystemTime) -> Result<(), FolderError> {
        let (mut roots, mut state) = (self.roots()?, self.state()?);
        if state.next(&roots).is_some() {
            return Err(FolderError::Order(
                "a root is prepared already; activate it first".to_owned(),
            ));
        }
        state.know(&next);
        state.next = Some(Step {
            root: next.facts().fingerprint.clone(),
            at: seconds(now),
        });
        roots
            .prepare(next)
            .map_err(|source| self.unusable(source))?;
        self.put_keys(&roots)?;
        self.put_state(&state)?;
        self.put_certificates(&roots)
    }

    /// Lets the prepared root sign. Unless `force`, nodes must have had [`SPREAD`] to hear of it.
    pub(crate) fn activate(&self, force: bool, now: SystemTime) -> Result<(), FolderError> {
        let (mut roots, mut state) = (self.roots()?, self.state()?);
        let next = state.next(&roots).cloned().ok_or_else(|| {
            FolderError::Order("no root is prepared; prepare one first".to_owned())
        })?;
        let since = seconds(now).saturating_sub(next.at);
        if !force && since < SPREAD.as_secs() {
            let wait =
                humantime::format_duration(SPREAD.saturating_sub(Duration::from_secs(since)));
            return Err(FolderError::Order(format!(
                "the new root was prepared {since} s ago; nodes may not have heard of it. Wait {wait}, or use --force"
            )));
        }
        roots
            .activate(&next.root)
            .map_err(|source| self.unusable(source))?;
        state.next = None;
        state.activated = Some(Step {
            root: next.root,
            at: seconds(now),
        });
        // The signer is whoever stands first in ca.crt, so this is the step. A prepared root that is found there counts
        // as prepared no more, whatever the state says.
        self.put_certificates(&roots)?;
        self.put_state(&state)
    }

    /// Trusts former roots no more. Unless `force`, everything that they signed must have ended.
    pub(crate) fn finish(&self, force: bool, now: SystemTime) -> Result<Vec<String>, FolderError> {
        let (mut roots, mut state) = (self.roots()?, self.state()?);
        let former = state.former(&roots);
        if former.is_empty() {
            return Err(FolderError::Order(
                "no former root is trusted; there is nothing to finish".to_owned(),
            ));
        }
        for root in &former {
            let last = if force {
                SystemTime::UNIX_EPOCH
            } else {
                state.last_leaf(&roots, root)
            };
            roots.finish(root, last, now).map_err(|error| match error {
                RootsError::StillInUse => {
                    let until = humantime::format_rfc3339_seconds(last);
                    FolderError::Order(format!(
                        "certificates that the former root signed may be valid until {until}; wait, or use --force and \
                         cut off whoever still has one"
                    ))
                }
                error => self.unusable(error),
            })?;
            state.last_leaf.remove(root);
        }
        self.put_certificates(&roots)?;
        self.put_keys(&roots)?;
        self.put_state(&state)?;
        Ok(former)
    }

    fn unusable(&self, source: RootsError) -> FolderError {
        FolderError::Roots {
            path: self.path.clone(),
            source,
        }
    }

    fn text(
        &self,
        name: &str,
        privacy: Privacy,
    ) -> Result<zeroize::Zeroizing<String>, FolderError> {
        let path = || self.path.join(name);
        let (info, bytes) = self
            .dir
            .read(name, LARGEST)
            .map_err(|source| FolderError::Io {
                path: path(),
                source,
            })?;
        let is_ours = info.owner == self.user || info.owner == ROOT_USER;
        if privacy == Privacy::Private && (info.mode & 0o077 != 0 || !is_ours) {
            return Err(FolderError::Exposed { path: path() });
        }
        let text =
            std::str::from_utf8(bytes.expose()).or(Err(FolderError::Text { path: path() }))?;
        Ok(zeroize::Zeroizing::new(text.to_owned()))
    }

    fn put_keys(&self, roots: &RootSet) -> Result<(), FolderError> {
        self.put(KEYS, roots.keys_pem().as_bytes(), Privacy::Private)
    }

    fn put_certificates(&self, roots: &RootSet) -> Result<(), FolderError> {
        let text = roots.certificates_pem();
        self.put(CERTIFICATES, text.as_bytes(), Privacy::Public)
    }

    fn put_state(&self, state: &State) -> Result<(), FolderError> {
        let text = serde_json::to_string_pretty(state).map_err(|source| FolderError::State {
            path: self.path.join(STATE),
            source,
        })?;
        self.put(STATE, text.as_bytes(), Privacy::Private)
    }

    /// Replaces a file whole, for good, or not at all.
    fn put(&self, name: &str, bytes: &[u8], privacy: Privacy) -> Result<(), FolderError> {
        let new = format!("{name}.new");
        let write = || {
            match self.dir.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.dir.write_private(&new, bytes)?;
            if privacy == Privacy::Public {
                let everyone = std::fs::Permissions::from_mode(0o644);
                std::fs::set_permissions(self.path.join(&new), everyone)?;
            }
            self.dir.rename(&new, name)?;
            self.dir.sync()
        };
        write().map_err(|source| FolderError::Io {
            path: self.path.join(name),
            source,
        })
    }
}

impl State {
    /// What a root that is trusted does.
    pub(crate) fn role(&self, roots: &RootSet, root: &str) -> Role {
        if roots.signer().facts().fingerprint == root {
            Role::Signs
        } else if self.next(roots).is_some_and(|next| next.root == root) {
            Role::Next
        } else {
            Role::Former
        }
    }

    /// The last moment at which a certificate that `root` signed may be valid.
    pub(crate) fn last_leaf(&self, roots: &RootSet, root: &str) -> SystemTime {
        match self.last_leaf.get(root) {
            // The one who signs may have been a moment late to hear that it signs no more.
            Some(last) => {
                let activated = self.activated.as_ref().map_or(0, |step| step.at);
                let heard = activated.saturating_add(HEARD.as_secs());
                SystemTime::UNIX_EPOCH + Duration::from_secs((*last).max(heard))
            }
            None => roots
                .others()
                .iter()
                .map(|other| &other.facts)
                .find(|facts| facts.fingerprint == root)
                .map_or(roots.signer().not_after(), |facts| facts.not_after),
        }
    }

    /// The root that is prepared, if it is trusted and does not sign yet.
    fn next(&self, roots: &RootSet) -> Option<&Step> {
        self.next.as_ref().filter(|next| {
            let mut others = roots.others().iter();
            others.any(|root| root.facts.fingerprint == next.root)
        })
    }

    fn former(&self, roots: &RootSet) -> Vec<String> {
        let others = roots.others().iter().map(|root| &root.facts.fingerprint);
        others
            .filter(|root| self.role(roots, root) == Role::Former)
            .cloned()
            .collect()
    }

    fn know(&mut self, root: &Authority) {
        self.last_leaf.insert(root.facts().fingerprint.clone(), 0);
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Privacy {
    Private,
    Public,
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// How long nodes have to hear of a new root before it signs. They wait for news all the time; this is for those that
/// could not reach the server for a moment.
pub(crate) const SPREAD: Duration = Duration::from_mins(5);
/// The server looks at the folder every second.
const HEARD: Duration = Duration::from_secs(5);
/// Files of the machine's administrator are as good as ours.
const ROOT_USER: u32 = 0;
/// Room for sixteen roots with room to spare.
const LARGEST: u64 = 1 << 20;
/// Every trusted root, the signer's first.
pub(crate) const CERTIFICATES: &str = "ca.crt";
/// Their keys.
pub(crate) const KEYS: &str = "ca.key";
const STATE: &str = "ca.json";
/// Who gets no certificate any more.
const DENIED: &str = "denied";

#[cfg(test)]
mod tests;
