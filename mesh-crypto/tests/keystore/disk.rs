//! The key store on the real file system: who may reach what.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_crypto::Error;
use mesh_crypto::KeyStore;
use mesh_crypto::RsaBits;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::keystore::FileSystem as _;
use mesh_crypto::keystore::OsFileSystem;
use rustix::fs::FileType;
use rustix::fs::Mode;

use crate::memory::Memory;
use crate::memory::USER;
use crate::support::BITS;
use crate::support::Canned;
use crate::support::open;
use crate::support::place;

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
        .load_or_generate(&Canned::new(), BITS, 1_000)
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
    let new = store.generate(&Canned::new(), BITS, 2_000).unwrap();
    let old = store.generate(&Canned::new(), BITS, 999).unwrap();
    fs::write(dir.join("README"), "left alone").unwrap();
    fs::write(dir.join(".rsa-1.pem.new"), "left by a crash").unwrap();
    let current = store.load_or_generate(&Canned::new(), BITS, 3_000).unwrap();
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
    store.generate(&Canned::new(), BITS, 1).unwrap();
    let file = only_file(&dir);
    for exposed in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&file, fs::Permissions::from_mode(exposed)).unwrap();
        let result = store.load_or_generate(&Canned::new(), BITS, 2);
        assert!(
            matches!(result, Err(Error::Exposed { mode, .. }) if mode == exposed),
            "{exposed:o}"
        );
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    store.load_or_generate(&Canned::new(), BITS, 2).unwrap();
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
    let (store, engine) = (open(&dir).unwrap(), Canned::new());
    store.generate(&engine, BITS, 1).unwrap();
    let first = only_file(&dir);
    let elsewhere = parent.path().join("elsewhere.pem");
    fs::rename(&first, &elsewhere).unwrap();
    symlink(&elsewhere, &first).unwrap();
    assert!(matches!(
        store.list(&*aws_lc()),
        Err(Error::StoreEntry { .. })
    ));
    fs::remove_file(&first).unwrap();
    store.generate(&engine, BITS, 2).unwrap();
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
    let (parent, _) = place();
    assert!(matches!(
        open(&parent.path().join("missing").join("deep")),
        Err(Error::Store { .. })
    ));
}

// threat 61
#[test]
fn a_linked_directory_and_a_pipe_are_refused() {
    let (parent, dir) = place();
    open(&dir).unwrap();
    let link = parent.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(matches!(open(&link), Err(Error::StoreEntry { .. })));
    let name = format!("rsa-{:020}-{}.pem", 1, "ab".repeat(32));
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, dir.join(name), FileType::Fifo, mode, 0).unwrap();
    // It would wait for ever if it waited for a writer.
    let refused = open(&dir).unwrap().newest(&*aws_lc());
    assert!(matches!(refused, Err(Error::StoreEntry { what, .. }) if what.contains("regular")));
}

// threat 61
#[test]
fn what_belongs_to_somebody_else_is_refused_and_to_root_is_not() {
    let memory = Memory::new();
    let store = |memory: &Memory| KeyStore::open(Arc::new(memory.clone()), Path::new("keys"));
    let engine = Canned::new();
    store(&memory).unwrap().generate(&engine, BITS, 1).unwrap();
    memory.give_away(USER, 4_711);
    assert!(matches!(
        store(&memory).unwrap().newest(&engine),
        Err(Error::Owner {
            owner: 4_711,
            user: USER,
            ..
        })
    ));
    memory.give_away(4_711, USER);
    let refused = store(&memory).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "keys belongs to user 4711, give it to user 1000, who runs this (chown 1000 FILE)"
    );
    memory.give_away(0, 0);
    assert!(store(&memory).unwrap().newest(&engine).unwrap().is_some());
}

#[test]
fn what_another_process_is_writing_is_left_alone() {
    let (_parent, dir) = place();
    open(&dir).unwrap();
    let unfinished = dir.join(format!(".rsa-{:020}-{}.pem.new", 1, "ab".repeat(32)));
    fs::write(&unfinished, "half a k").unwrap();
    let writer = OsFileSystem::new().open_dir(&dir).unwrap();
    writer.lock().unwrap();
    open(&dir).unwrap();
    assert!(unfinished.exists());
    drop(writer);
    open(&dir).unwrap();
    assert!(!unfinished.exists());
}

#[test]
fn processes_that_start_at_once_have_one_key() {
    let (_parent, dir) = place();
    open(&dir).unwrap();
    let keys = std::thread::scope(|scope| {
        let start = || {
            open(&dir)
                .unwrap()
                .load_or_generate(&Canned::new(), BITS, 1)
                .unwrap()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap().public().fingerprint())
            .collect::<Vec<_>>()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    only_file(&dir);
}
