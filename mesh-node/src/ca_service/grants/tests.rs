//! A token is one key's, whatever fails in between and whoever else tries.

use std::ffi::OsString;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use mesh_auth::ca::join::DEFAULT_TTL;
use mesh_crypto::Secret;
use mesh_crypto::keystore::FileInfo;
use tempfile::TempDir;

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn grant() -> Grant {
    let id = SpiffeId::parse("spiffe://example.org/alice").unwrap();
    Grant::new(id, DEFAULT_TTL, now()).unwrap()
}

fn granted(grants: &Grants) -> JoinToken {
    let token = JoinToken::generate().unwrap();
    grants.add(&token, &grant(), now()).unwrap();
    token
}

fn is_used(taken: &Result<SpiffeId, GrantsError>) -> bool {
    matches!(taken, Err(GrantsError::Refused(JoinError::Used)))
}

#[test]
fn a_token_is_the_first_keys_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let token = granted(&Grants::new(dir.path()));
    let id = Grants::new(dir.path()).take(&token, "key-1", now());
    assert_eq!(id.unwrap().as_str(), "spiffe://example.org/alice");
    let again = Grants::new(dir.path());
    assert!(is_used(&again.take(&token, "key-2", now())));
    // An answer may be lost on its way.
    again.take(&token, "key-1", now()).unwrap();
    let late = again.take(&token, "key-1", now() + DEFAULT_TTL);
    assert!(matches!(
        late,
        Err(GrantsError::Refused(JoinError::Expired))
    ));
}

#[test]
fn a_token_that_nobody_made_lets_nobody_in() {
    let dir = TempDir::new().unwrap();
    let (grants, stranger) = (Grants::new(dir.path()), JoinToken::generate().unwrap());
    let refused = |grants: &Grants| {
        let taken = grants.take(&stranger, "key", now());
        matches!(taken, Err(GrantsError::Unknown))
    };
    assert!(refused(&grants));
    granted(&grants);
    assert!(refused(&grants));
}

#[test]
fn of_many_that_come_at_once_one_gets_in() {
    let dir = TempDir::new().unwrap();
    let token = granted(&Grants::new(dir.path()));
    let first = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..16 {
            let (token, path, first) = (&token, dir.path(), &first);
            scope.spawn(move || {
                let id = Grants::new(path).take(token, &format!("key-{number}"), now());
                if id.is_ok() {
                    first.fetch_add(1, Ordering::Relaxed);
                } else {
                    assert!(is_used(&id));
                }
            });
        }
    });
    assert_eq!(first.into_inner(), 1);
}

#[test]
fn what_has_ended_is_forgotten() {
    let dir = TempDir::new().unwrap();
    let grants = Grants::new(dir.path());
    let token = granted(&grants);
    grants.take(&token, "key", now()).unwrap();
    granted(&grants);
    std::fs::write(dir.path().join("join/left.new"), "").unwrap();
    assert_eq!(grants.list(now()).unwrap().len(), 2);
    assert_eq!(grants.list(now() + DEFAULT_TTL).unwrap(), []);
    let left = std::fs::read_dir(dir.path().join("join")).unwrap();
    assert_eq!(left.count(), 0);
}

// threat 61
#[test]
fn the_folder_shows_no_token_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let token = granted(&Grants::new(dir.path()));
    let join = dir.path().join("join");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&join), 0o700);
    for entry in std::fs::read_dir(&join).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600);
        let shown = format!("{path:?} {}", std::fs::read_to_string(&path).unwrap());
        let secret = token.expose().rsplit_once('-').unwrap().1;
        assert!(!shown.contains(secret));
    }
}

/// Fails every operation that changes something from the one with this number on, as after a crash; the one with the
/// number itself may have been done.
#[derive(Debug)]
struct Failing {
    left: AtomicUsize,
    is_done_before: bool,
}

#[derive(Debug)]
struct FailingFiles(Arc<Failing>);

#[derive(Debug)]
struct FailingDirectory(Arc<Failing>, Box<dyn Directory>);

impl Failing {
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.left.load(Ordering::Relaxed) {
            0 => return Err(io::ErrorKind::StorageFull.into()),
            left => self.left.store(left - 1, Ordering::Relaxed),
        }
        if self.left.load(Ordering::Relaxed) == 0 {
            if self.is_done_before {
                change()?;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        change()
    }
}

impl FileSystem for FailingFiles {
    fn user(&self) -> u32 {
        OsFileSystem::new().user()
    }

    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        OsFileSystem::new().create_private_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>> {
        let dir = OsFileSystem::new().open_dir(path)?;
        Ok(Box::new(FailingDirectory(Arc::clone(&self.0), dir)))
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        OsFileSystem::new().read(path, max_bytes)
    }
}

impl Directory for FailingDirectory {
    fn info(&self) -> io::Result<FileInfo> {
        self.1.info()
    }

    fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        self.1.names(max)
    }

    fn read(&self, name: &str, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        self.1.read(name, max_bytes)
    }

    fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.change(|| self.1.write_private(name, bytes))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.change(|| self.1.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.change(|| self.1.remove(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.change(|| self.1.sync())
    }

    fn lock(&self) -> io::Result<()> {
        self.1.lock()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.1.try_lock()
    }
}

#[test]
fn wherever_it_fails_a_token_never_lets_two_keys_in() {
    let mut failed = 0;
    for is_done_before in [false, true] {
        for operations in 1..8 {
            let dir = TempDir::new().unwrap();
            let token = granted(&Grants::new(dir.path()));
            let failing = Failing {
                left: AtomicUsize::new(operations),
                is_done_before,
            };
            let files = Arc::new(FailingFiles(Arc::new(failing)));
            let first = Grants::on(dir.path(), files).take(&token, "key-1", now());
            failed += usize::from(first.is_err());

            let restarted = Grants::new(dir.path());
            let second = restarted.take(&token, "key-2", now());
            assert!(
                first.is_err() || second.is_err(),
                "operation {operations}, done before: {is_done_before}"
            );
            // Somebody gets in: a failure takes the token from nobody for good.
            assert!(second.is_ok() || restarted.take(&token, "key-1", now()).is_ok());
        }
    }
    // Removing what was left, writing, renaming, syncing.
    assert_eq!(failed, 8);
}
