//! Whose files are read.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

// threat 61
#[test]
fn a_key_that_others_may_read_is_refused() {
    for (mode, owner, own, is_allowed) in [
        (0o600, 1000, 1000, true),
        (0o400, 1000, 1000, true),
        (0o700, 1000, 1000, true),
        (0o640, 1000, 1000, false),
        (0o604, 1000, 1000, false),
        (0o620, 1000, 1000, false),
        (0o644, 1000, 1000, false),
        // Kubernetes: root's, readable for the group that we are in.
        (0o640, 0, 1000, true),
        (0o440, 0, 1000, true),
        (0o660, 0, 1000, false),
        (0o444, 0, 1000, false),
        // We are root: nobody else's business.
        (0o600, 0, 0, true),
        (0o640, 0, 0, false),
        // Somebody else's, who could change it.
        (0o600, 1001, 1000, false),
        (0o600, 1000, 0, false),
    ] {
        let why = exposure(0o100_000 | mode, owner, own);
        assert_eq!(why.is_none(), is_allowed, "{mode:o} {owner} {own} {why:?}");
    }
}

#[test]
fn the_refusal_names_file_mode_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let error = read_key(&path).unwrap_err().to_string();
    assert!(error.contains("a.key has mode 0644"), "{error}");
    assert!(error.ends_with("chmod 600 it"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(**read_key(&path).unwrap(), *b"secret");
}

#[test]
fn what_is_no_file_or_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    read(dir.path()).unwrap_err();
    let path = dir.path().join("large");
    fs::write(&path, vec![b'a'; (4 << 20) + 1]).unwrap();
    read(&path).unwrap_err();
}
