//! Files that a command reads and writes.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::report::Failure;

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// The owner alone (mode 0600).
    Private,
    /// Everyone (mode 0644).
    Public,
}

/// Writes `content` to `path`, whole or not at all: under another name first, which is then renamed.
pub(super) fn write(path: &Path, content: &str, access: Access) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mode = match access {
        Access::Private => 0o600,
        Access::Public => 0o644,
    };
    let written = remove(Path::new(&temporary)).and_then(|()| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|error| Failure::new(format!("could not write {}", path.display()), error))
}

/// Reads a small text file, wiped from memory when dropped.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = || -> io::Result<Zeroizing<String>> {
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path)?
            .take(LARGEST)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    text().map_err(|error| Failure::new(format!("could not read {}", path.display()), error))
}

/// Makes a folder and its parents; with [`Access::Private`] what is made is its owner's alone.
pub(super) fn make_dir(path: &Path, access: Access) -> Result<(), Failure> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let mode = match access {
        Access::Private => 0o700,
        Access::Public => 0o755,
    };
    let result = fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    result.map_err(|error| {
        Failure::new(
            format!("could not make the folder {}", path.display()),
            error,
        )
    })
}

/// Refuses to go on if one of `paths` is there, unless `force`.
pub(super) fn refuse_overwrite(paths: &[&Path], force: bool) -> Result<(), Failure> {
    match paths.iter().find(|path| !force && path.exists()) {
        Some(path) => Err(Failure::plain(format!(
            "{} is there already; --force replaces it",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Whether others than the owner can read the file.
pub(super) fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Room for a trust bundle of a thousand certificates.
const LARGEST: u64 = 4 << 20;
