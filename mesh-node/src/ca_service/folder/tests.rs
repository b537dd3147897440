//! The files of an authority say after every step, and after a crash in any of them, what is trusted and what signs.

use std::fs;

use mesh_auth::spiffe::TrustDomain;
use tempfile::TempDir;

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + Duration::from_secs(seconds)
}

fn authority() -> Authority {
    let domain = TrustDomain::parse("example.org").unwrap();
    Authority::generate(&domain, Duration::from_hours(24), at(0)).unwrap()
}

/// A folder with an authority, and its fingerprint.
fn folder() -> (TempDir, CaFolder, String) {
    let dir = TempDir::new().unwrap();
    let first = authority();
    let ca = CaFolder::new(dir.path());
    let locked = ca.lock().unwrap();
    let roots = RootSet::new(first);
    locked.put_keys(&roots).unwrap();
    locked.put_certificates(&roots).unwrap();
    locked.begin(roots.signer()).unwrap();
    let name = roots.signer().facts().fingerprint.clone();
    drop(locked);
    (dir, ca, name)
}

/// Each root and what it does, the signer first.
fn roles(ca: &CaFolder) -> Vec<(String, Role)> {
    let locked = ca.lock().unwrap();
    let (roots, state) = (locked.roots().unwrap(), locked.state().unwrap());
    let others = roots.others().iter().map(|root| &root.facts);
    std::iter::once(roots.signer().facts())
        .chain(others)
        .map(|facts| {
            let name = facts.fingerprint.clone();
            (name.clone(), state.role(&roots, &name))
        })
        .collect()
}

fn prepare(ca: &CaFolder, now: u64) -> Result<String, FolderError> {
    let next = authority();
    let name = next.facts().fingerprint.clone();
    ca.lock().unwrap().prepare(next, at(now)).map(|()| name)
}

fn is_too_early<T>(result: &Result<T, FolderError>) -> bool {
    matches!(result, Err(FolderError::Order(_)))
}

#[test]
fn a_root_is_replaced_when_each_step_is_due_and_not_before() {
    let (_dir, ca, old) = folder();
    ca.lock().unwrap().promise(&old, at(4_000)).unwrap();
    let new = prepare(&ca, 10).unwrap();
    assert_eq!(
        roles(&ca),
        [(old.clone(), Role::Signs), (new.clone(), Role::Next)]
    );
    assert!(is_too_early(&prepare(&ca, 11)));
    assert!(is_too_early(&ca.lock().unwrap().finish(false, at(9_000))));

    assert!(is_too_early(&ca.lock().unwrap().activate(false, at(309))));
    ca.lock().unwrap().activate(false, at(310)).unwrap();
    assert_eq!(
        roles(&ca),
        [(new.clone(), Role::Signs), (old.clone(), Role::Former)]
    );
    assert!(is_too_early(&ca.lock().unwrap().activate(false, at(900))));
    // The old one signs no more, so nobody may promise in its name.
    assert!(matches!(
        ca.lock().unwrap().promise(&old, at(5_000)),
        Err(FolderError::Replaced)
    ));

    assert!(is_too_early(&ca.lock().unwrap().finish(false, at(4_000))));
    let gone = ca.lock().unwrap().finish(false, at(4_001)).unwrap();
    assert_eq!(gone, [old]);
    assert_eq!(roles(&ca), [(new, Role::Signs)]);
    let keys = fs::read_to_string(ca.path().join(KEYS)).unwrap();
    assert_eq!(keys.matches("BEGIN").count(), 1);
}

#[test]
fn of_a_root_that_nobody_kept_book_of_every_certificate_may_live_as_long_as_the_root() {
    let (dir, ca, old) = folder();
    fs::remove_file(dir.path().join(STATE)).unwrap();
    ca.lock().unwrap().promise(&old, at(100)).unwrap();
    prepare(&ca, 0).unwrap();
    ca.lock().unwrap().activate(true, at(0)).unwrap();
    let day = 24 * 3600;
    assert!(is_too_early(&ca.lock().unwrap().finish(false, at(day))));
    ca.lock().unwrap().finish(false, at(day + 1)).unwrap();
}

#[test]
fn force_finishes_at_once() {
    let (_dir, ca, old) = folder();
    ca.lock().unwrap().promise(&old, at(4_000)).unwrap();
    prepare(&ca, 0).unwrap();
    ca.lock().unwrap().activate(true, at(0)).unwrap();
    assert!(is_too_early(&ca.lock().unwrap().finish(false, at(60))));
    assert_eq!(ca.lock().unwrap().finish(true, at(60)).unwrap(), [old]);
}

#[test]
fn a_server_that_is_late_to_hear_has_a_moment() {
    let (_dir, ca, _old) = folder();
    prepare(&ca, 0).unwrap();
    ca.lock().unwrap().activate(true, at(10)).unwrap();
    assert!(is_too_early(&ca.lock().unwrap().finish(false, at(15))));
    ca.lock().unwrap().finish(false, at(16)).unwrap();
}

// threat 61
#[test]
fn keys_that_others_can_read_are_not_used() {
    let (dir, ca, _) = folder();
    let key = dir.path().join(KEYS);
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let refused = ca.lock().unwrap().roots();
        assert!(
            matches!(refused, Err(FolderError::Exposed { .. })),
            "{mode:o}"
        );
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        ca.lock().unwrap().roots().unwrap();
    }
    let mode = |name: &str| {
        let path = dir.path().join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    prepare(&ca, 0).unwrap();
    assert_eq!(
        [mode(KEYS), mode(STATE), mode(CERTIFICATES)],
        [0o600, 0o600, 0o644]
    );
}

/// Copies the files as they are: what a crash at this moment leaves.
fn snapshot(from: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in [CERTIFICATES, KEYS, STATE] {
        drop(fs::copy(from.join(name), dir.path().join(name)));
    }
    dir
}

/// What lies there when a step is cut off after its first, its second, its last file.
fn cut_after(before: &Path, after: &Path, order: &[&str]) -> Vec<TempDir> {
    (1..=order.len())
        .map(|done| {
            let dir = snapshot(before);
            for name in order.iter().take(done) {
                fs::copy(after.join(name), dir.path().join(name)).unwrap();
            }
            dir
        })
        .collect()
}

#[test]
fn a_step_that_was_cut_off_can_be_made_again_or_is_made() {
    let (dir, ca, old) = folder();
    let first = snapshot(dir.path());
    prepare(&ca, 0).unwrap();
    let prepared = snapshot(dir.path());
    ca.lock().unwrap().activate(true, at(0)).unwrap();
    let active = snapshot(dir.path());
    ca.lock().unwrap().finish(false, at(100)).unwrap();

    for cut in cut_after(first.path(), prepared.path(), &[KEYS, STATE, CERTIFICATES]) {
        let ca = CaFolder::new(cut.path());
        assert_eq!(roles(&ca).first(), Some(&(old.clone(), Role::Signs)));
        if roles(&ca).len() == 1 {
            prepare(&ca, 0).unwrap();
        }
        ca.lock().unwrap().activate(true, at(0)).unwrap();
    }
    for cut in cut_after(prepared.path(), active.path(), &[CERTIFICATES, STATE]) {
        let ca = CaFolder::new(cut.path());
        assert_eq!(roles(&ca).last(), Some(&(old.clone(), Role::Former)));
        ca.lock().unwrap().finish(false, at(100)).unwrap();
    }
    for cut in cut_after(active.path(), dir.path(), &[CERTIFICATES, KEYS, STATE]) {
        let ca = CaFolder::new(cut.path());
        assert_eq!(roles(&ca).len(), 1);
        prepare(&ca, 200).unwrap();
    }
}
