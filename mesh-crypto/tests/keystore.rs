//! The key store on the real file system, and on one that fails.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]
#![cfg(unix)]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_crypto::Error;
use mesh_crypto::KeyStore;
use mesh_crypto::RsaBits;
use mesh_crypto::Secret;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::keystore::FileInfo;
use mesh_crypto::keystore::FileSystem;
use mesh_crypto::keystore::OsFileSystem;
use tempfile::TempDir;

const BITS: RsaBits = RsaBits::B2048;

fn place() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("keys");
    (parent, dir)
}

fn open(dir: &Path) -> Result<KeyStore, Error> {
    KeyStore::open(Arc::new(OsFileSystem::new()), dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn only_file(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none());
    file
}

#[test]
fn makes_a_private_key_once_and_finds_it_again() {
    let (_parent, dir) = place();
    let made = open(&dir)
        .unwrap()
        .load_or_generate(&*aws_lc(), BITS, 1_000)
        .unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&only_file(&dir)), 0o600);
    let found = open(&dir)
        .unwrap()
        .load_or_generate(&*aws_lc(), RsaBits::B4096, 2_000)
        .unwrap();
    assert_eq!(found.public(), made.public());
}

#[test]
fn the_newest_key_is_current_and_all_are_listed() {
    let (_parent, dir) = place();
    let store = open(&dir).unwrap();
    let new = store.generate(&*aws_lc(), BITS, 2_000).unwrap();
    let old = store.generate(&*aws_lc(), BITS, 999).unwrap();
    fs::write(dir.join("README"), "left alone").unwrap();
    fs::write(dir.join(".rsa-1.pem.new"), "left by a crash").unwrap();
    let current = store.load_or_generate(&*aws_lc(), BITS, 3_000).unwrap();
    assert_eq!(current.public(), new.public());
    let list = store.list(&*aws_lc()).unwrap();
    let seen: Vec<_> = list
        .iter()
        .map(|key| (key.created, key.fingerprint, key.bits))
        .collect();
    assert_eq!(
        seen,
        [
            (999, old.public().fingerprint(), BITS),
            (2_000, new.public().fingerprint(), BITS)
        ]
    );
}

// threat 61
#[test]
fn what_others_can_reach_is_refused() {
    let (_parent, dir) = place();
    let store = open(&dir).unwrap();
    store.generate(&*aws_lc(), BITS, 1).unwrap();
    let file = only_file(&dir);
    for exposed in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&file, fs::Permissions::from_mode(exposed)).unwrap();
        let result = store.load_or_generate(&*aws_lc(), BITS, 2);
        assert!(
            matches!(result, Err(Error::Exposed { mode, .. }) if mode == exposed),
            "{exposed:o}"
        );
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    store.load_or_generate(&*aws_lc(), BITS, 2).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(
        store.list(&*aws_lc()),
        Err(Error::Exposed { mode: 0o755, .. })
    ));
    assert!(matches!(open(&dir), Err(Error::Exposed { .. })));
}

// threat 61
#[test]
fn a_link_or_a_swapped_file_is_refused() {
    let (parent, dir) = place();
    let store = open(&dir).unwrap();
    store.generate(&*aws_lc(), BITS, 1).unwrap();
    let first = only_file(&dir);
    let elsewhere = parent.path().join("elsewhere.pem");
    fs::rename(&first, &elsewhere).unwrap();
    symlink(&elsewhere, &first).unwrap();
    assert!(matches!(
        store.list(&*aws_lc()),
        Err(Error::StoreEntry { .. })
    ));
    fs::remove_file(&first).unwrap();
    store.generate(&*aws_lc(), BITS, 2).unwrap();
    fs::rename(only_file(&dir), &first).unwrap();
    assert!(matches!(
        store.list(&*aws_lc()),
        Err(Error::StoreEntry { .. })
    ));
    fs::write(&first, vec![b'A'; 20_000]).unwrap();
    assert!(matches!(store.list(&*aws_lc()), Err(Error::Store { .. })));
}

#[test]
fn a_file_is_no_key_directory() {
    let (_parent, dir) = place();
    fs::write(&dir, "").unwrap();
    assert!(matches!(open(&dir), Err(Error::StoreEntry { .. })));
    assert!(matches!(
        open(&dir.join("missing").join("deep")),
        Err(Error::Store { .. })
    ));
}

#[derive(Debug)]
struct FailsToRename(OsFileSystem);

impl FileSystem for FailsToRename {
    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_private_dir(path)
    }
    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        self.0.info(path)
    }
    fn names(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.0.names(dir)
    }
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        self.0.read(path, max_bytes)
    }
    fn write_private(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.0.write_private(path, bytes)
    }
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::Error::other("disk full"))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let (_parent, dir) = place();
    let store = KeyStore::open(Arc::new(FailsToRename(OsFileSystem::new())), &dir).unwrap();
    let error = store.load_or_generate(&*aws_lc(), BITS, 1).unwrap_err();
    assert!(matches!(
        error,
        Error::Store {
            action: "write the key file",
            ..
        }
    ));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
