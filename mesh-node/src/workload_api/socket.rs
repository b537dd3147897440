//! A Unix socket that nobody else can have put there, and nobody but those it is for can reach.

use std::fs;
use std::fs::DirBuilder;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::net::UnixStream;

/// A socket that is open, and gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file that we made.
    file: (u64, u64),
}

impl Socket {
    /// Opens a socket at `path` (threat 61): for this user alone, or with `group` for that group too.
    ///
    /// It is made under another name in a folder of our own and then moved, so that it never stands there with other
    /// permissions. What is there already is replaced only if it is a socket of ours that nobody answers on any more.
    ///
    /// # Errors
    ///
    /// When the folder can be written by others or is a link, something else is there, or the system refuses.
    pub(crate) fn open(path: &Path, access: Access) -> io::Result<Self> {
        let folder = crate::watch::folder_of(path);
        // One that we make is ours to write and others' to pass through.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)?;
        let own = rustix::process::geteuid().as_raw();
        check_folder(&folder, own)?;
        check_place(path, own)?;

        let name = path.file_name().ok_or_else(|| other("it names no file"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let private = folder.join(hidden);
        DirBuilder::new().mode(0o700).create(&private)?;
        let made = Self::make(&private.join("s"), path, access);
        drop(fs::remove_file(private.join("s")));
        drop(fs::remove_dir(&private));
        let (listener, facts) = made?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (facts.dev(), facts.ino()),
        })
    }

    fn make(first: &Path, path: &Path, access: Access) -> io::Result<(UnixListener, fs::Metadata)> {
        let listener = UnixListener::bind(first)?;
        if let Access::Group(Some(gid)) = access {
            std::os::unix::fs::lchown(first, None, Some(gid))?;
        }
        let mode = match access {
            Access::Owner => 0o600,
            Access::Group(_) => 0o660,
        };
        fs::set_permissions(first, Permissions::from_mode(mode))?;
        let facts = fs::symlink_metadata(first)?;
        fs::rename(first, path)?;
        Ok((listener, facts))
    }

    /// The next program that connects.
    pub(super) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    // Out of file descriptors, most likely: not for long, and not at full speed.
                    tracing::warn!(%error, "a program could not be let in to the workload api");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|facts| (facts.dev(), facts.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the workload api's socket stays behind");
        }
    }
}

/// Who may connect to a socket, as far as its permissions say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// This user (mode 0600).
    Owner,
    /// And a group, our own where none is named (mode 0660).
    Group(Option<u32>),
}

/// In a folder that others may write, they could put their own socket in the place of ours.
fn check_folder(folder: &Path, own: u32) -> io::Result<()> {
    let facts = fs::symlink_metadata(folder)?;
    if !facts.is_dir() {
        return Err(other("its folder is a link or no folder"));
    }
    let is_kept = facts.uid() == own || facts.uid() == 0;
    // In a sticky folder such as /tmp nobody can remove what is ours, but before us anybody can put something there.
    if !is_kept || facts.mode() & 0o022 != 0 {
        return Err(other(
            "its folder can be written by others; give it one of its own (chmod 755)",
        ));
    }
    Ok(())
}

fn check_place(path: &Path, own: u32) -> io::Result<()> {
    let facts = match fs::symlink_metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !facts.file_type().is_socket() || facts.uid() != own {
        return Err(other(
            "something is there that is no socket of ours; remove it",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(other("another process answers on it")),
    }
}

fn other(what: &'static str) -> io::Error {
    io::Error::other(what)
}

const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
