//! Reading the files that identities lie in: bounded, and keys only where they are kept from others.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;

/// Reads a file of certificates.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    open(path)
        .and_then(|file| content(&file))
        .map_err(|source| unreadable(path, source))
}

/// Reads the file of a private key, and refuses one that others may read (threat 61).
pub(crate) fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = open(path).map_err(|source| unreadable(path, source))?;
    // Of the file that is open, not of whatever has its name by now.
    let facts = file.metadata().map_err(|source| unreadable(path, source))?;
    let own = rustix::process::geteuid().as_raw();
    if let Some(why) = exposure(facts.mode(), facts.uid(), own) {
        return Err(Error::missing(format!("the key {} {why}", path.display())));
    }
    content(&file).map_err(|source| unreadable(path, source))
}

/// Why a key file of this mode and owner is not one that only the user `own` (and root) reads and writes.
///
/// One that belongs to root may be readable for its group, if we are not root: so Kubernetes hands out secrets
/// (`fsGroup`).
fn exposure(mode: u32, owner: u32, own: u32) -> Option<String> {
    if owner != own && owner != ROOT {
        return Some(format!(
            "belongs to user {owner}, neither to us ({own}) nor to root; chown it"
        ));
    }
    let allowed = if owner == ROOT && own != ROOT {
        0o740
    } else {
        0o700
    };
    let bits = mode & 0o777;
    (bits & !allowed != 0)
        .then(|| format!("has mode {bits:04o}, so that others may read or change it; chmod 600 it"))
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // A pipe or a device would block or never end.
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a file"))
    }
}

fn content(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    file.take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(content)
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source,
    }
}

const ROOT: u32 = 0;
/// Room for a trust bundle of a thousand certificates.
const LARGEST: u64 = 4 << 20;

#[cfg(test)]
mod tests;
