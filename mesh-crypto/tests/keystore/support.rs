//! Engines that take their keys from files, because making one takes long.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::KeyStore;
use mesh_crypto::MacKey;
use mesh_crypto::Random;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::agreement::MlKem768Key;
use mesh_crypto::agreement::X25519Key;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::keystore::OsFileSystem;
use tempfile::TempDir;

pub(crate) const BITS: RsaBits = RsaBits::B2048;

/// A place for a key directory, and the directory, which is not there yet.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("keys");
    (parent, dir)
}

/// The store in `dir` of the real file system.
pub(crate) fn open(dir: &Path) -> Result<KeyStore, Error> {
    KeyStore::open(Arc::new(OsFileSystem::new()), dir)
}

/// The engine that has a key ready: three in turn, then the same again.
#[derive(Debug)]
pub(crate) struct Canned {
    engine: Arc<dyn Engine>,
    next: AtomicUsize,
}

impl Canned {
    pub(crate) fn new() -> Self {
        Self {
            engine: aws_lc(),
            next: AtomicUsize::new(0),
        }
    }
}

const KEYS: [&str; 3] = [
    include_str!("../data/keys/alice-2048.pem"),
    include_str!("../data/keys/bob-2048.pem"),
    include_str!("../data/keys/carol-2048.pem"),
];

impl Engine for Canned {
    fn generate_rsa(&self, _bits: RsaBits) -> Result<RsaKeyPair, Error> {
        let text = KEYS[self.next.fetch_add(1, Ordering::Relaxed) % KEYS.len()];
        RsaKeyPair::from_pkcs8_pem(&*self.engine, &Secret::from_slice(text.as_bytes()))
    }

    fn name(&self) -> &'static str {
        self.engine.name()
    }
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.engine.sha256(parts)
    }
    fn mac_key(&self, key: &[u8]) -> MacKey {
        self.engine.mac_key(key)
    }
    fn aead_key(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<AeadKey, Error> {
        self.engine.aead_key(algorithm, key)
    }
    fn x25519_key(&self, random: &dyn Random) -> Result<X25519Key, Error> {
        self.engine.x25519_key(random)
    }
    fn ml_kem_768_key(&self, random: &dyn Random) -> Result<MlKem768Key, Error> {
        self.engine.ml_kem_768_key(random)
    }
    fn ml_kem_768_encapsulate(
        &self,
        key: &[u8],
        random: &dyn Random,
    ) -> Result<(Vec<u8>, Secret), Error> {
        self.engine.ml_kem_768_encapsulate(key, random)
    }
    fn rsa_from_pkcs8(&self, der: &Secret) -> Result<RsaKeyPair, Error> {
        self.engine.rsa_from_pkcs8(der)
    }
    fn rsa_from_spki(&self, der: &[u8]) -> Result<RsaPublicKey, Error> {
        self.engine.rsa_from_spki(der)
    }
}
