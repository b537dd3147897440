//! What a node keeps of what the authority gave it: `identity.pem`, key and certificate in one file so that they always
//! belong together, and `bundle.json`, the roots that it was told of.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_crypto::keystore::FileSystem;
use mesh_crypto::keystore::OsFileSystem;
use mesh_transport::tls::Credentials;
use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::ClientError;

#[derive(Clone, Debug)]
pub(super) struct Home {
    dir: PathBuf,
    /// The roots to begin with.
    pinned: PathBuf,
    files: Arc<dyn FileSystem>,
}

/// A certificate chain and its key.
#[derive(Clone)]
pub(super) struct Own {
    chain: String,
    /// Key and chain, as the file holds them.
    pem: Zeroizing<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Told {
    /// What `identity.ca_file` held when the server was believed. Whoever changes that file means it: then only the file
    /// counts.
    pinned: String,
    bundle: String,
}

impl Own {
    pub(super) fn new(chain: String, key: &str) -> Self {
        let mut pem = Zeroizing::new(String::with_capacity(key.len() + chain.len()));
        pem.push_str(key);
        pem.push_str(&chain);
        Self { chain, pem }
    }

    /// The certificates, leaf first, PEM.
    pub(super) fn chain(&self) -> &str {
        &self.chain
    }

    /// Key and certificates, PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Both, checked to belong together.
    pub(super) fn credentials(&self) -> Result<Credentials, ClientError> {
        Credentials::from_pem(self.chain.as_bytes(), self.pem.as_bytes()).map_err(ClientError::Tls)
    }
}

impl Home {
    pub(super) fn new(dir: PathBuf, pinned: PathBuf) -> Self {
        Self {
            dir,
            pinned,
            files: Arc::new(OsFileSystem::new()),
        }
    }

    /// The roots to trust: those that the server told of, unless the pinned ones have changed since. Blocks.
    pub(super) fn bundle(&self) -> Result<String, ClientError> {
        let pinned = self.read_public(&self.pinned)?;
        let path = self.dir.join(BUNDLE);
        let Some(text) = found(self.read_private(&path))? else {
            return Ok(pinned);
        };
        let told: Told =
            serde_json::from_str(&text).map_err(|_unread| ClientError::Damaged { path })?;
        Ok(if told.pinned == pinned {
            told.bundle
        } else {
            pinned
        })
    }

    /// Key and certificate of an earlier run. Blocks.
    pub(super) fn own(&self) -> Result<Option<Own>, ClientError> {
        let text = found(self.read_private(&self.dir.join(IDENTITY)))?;
        Ok(text.map(|pem| {
            let chain = pem
                .find("-----BEGIN CERTIFICATE-----")
                .and_then(|at| pem.get(at..))
                .unwrap_or_default()
                .to_owned();
            Own { chain, pem }
        }))
    }

    /// Keeps what the server told. Blocks.
    pub(super) fn keep_bundle(&self, bundle: &str) -> Result<(), ClientError> {
        let told = Told {
            pinned: self.read_public(&self.pinned)?,
            bundle: bundle.to_owned(),
        };
        let text = serde_json::to_string(&told).map_err(ClientError::Answer)?;
        self.write(BUNDLE, text.as_bytes())
    }

    /// Keeps key and certificate, both or neither. Blocks.
    pub(super) fn keep_own(&self, own: &Own) -> Result<(), ClientError> {
        self.write(IDENTITY, own.pem.as_bytes())
    }

    /// Reads a small file that nobody but its owner may read.
    pub(super) fn read_private(&self, path: &Path) -> Result<Zeroizing<String>, ClientError> {
        let (info, text) = self.read(path)?;
        let is_ours = info.owner == self.files.user() || info.owner == ROOT_USER;
        if info.mode & 0o077 != 0 || !is_ours {
            return Err(ClientError::Exposed {
                path: path.to_owned(),
            });
        }
        Ok(text)
    }

    fn read_public(&self, path: &Path) -> Result<String, ClientError> {
        Ok(self.read(path)?.1.to_string())
    }

    fn read(
        &self,
        path: &Path,
    ) -> Result<(mesh_crypto::keystore::FileInfo, Zeroizing<String>), ClientError> {
        let file = |source| ClientError::File {
            path: path.to_owned(),
            source,
        };
        let (info, bytes) = self.files.read(path, LARGEST).map_err(file)?;
        let text = std::str::from_utf8(bytes.expose())
            .map_err(|error| file(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Ok((info, Zeroizing::new(text.to_owned())))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ClientError> {
        let path = self.dir.join(name);
        let write = || {
            match self.files.create_private_dir(&self.dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let dir = self.files.open_dir(&self.dir)?;
            dir.lock()?;
            let new = format!("{name}.new");
            match dir.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            dir.write_private(&new, bytes)?;
            dir.rename(&new, name)?;
            dir.sync()
        };
        write().map_err(|source| ClientError::File { path, source })
    }
}

/// That there is no file is no failure.
fn found<T>(read: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match read {
        Err(ClientError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        read => read.map(Some),
    }
}

const IDENTITY: &str = "identity.pem";
const BUNDLE: &str = "bundle.json";
/// Files of the machine's administrator are as good as ours.
const ROOT_USER: u32 = 0;
/// Room for sixteen roots with room to spare.
const LARGEST: u64 = 1 << 20;
