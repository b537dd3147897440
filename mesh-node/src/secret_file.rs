//! Files that hold one secret on one line, read by their owner alone.

use std::io;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Reads the secret in the file at `path`, without the end of its line.
///
/// # Errors
///
/// [`SecretFileError`], also when others than the owner could read the secret (threat 61).
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let file = std::fs::File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(SecretFileError::Kind);
    }
    let user = rustix::process::geteuid().as_raw();
    if about.uid() != user && about.uid() != ROOT {
        return Err(SecretFileError::Owner {
            owner: about.uid(),
            user,
        });
    }
    let mode = about.mode() & 0o777;
    let refused = if about.uid() == ROOT && user != ROOT {
        // Kubernetes gives a secret to a user who is not root by its group.
        OTHERS | GROUP_WRITES
    } else {
        OTHERS | GROUP
    };
    if mode & refused != 0 {
        return Err(SecretFileError::Exposed { mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES));
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    file.take(limit).read_to_string(&mut text)?;
    if text.len() == MAX_BYTES {
        return Err(SecretFileError::TooLarge);
    }
    let line = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(line);
    Ok(text)
}

/// Why a secret's file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    /// It can't be read.
    #[error("it can't be read")]
    Read(#[from] io::Error),
    /// It is a folder, a pipe or a device.
    #[error("it is not a regular file")]
    Kind,
    /// It belongs to somebody else.
    #[error("it belongs to user {owner}, who can change it; make {user} its owner (chown)")]
    Owner {
        /// Its owner.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others can read it.
    #[error("others than its owner can reach it (mode {mode:o}); take that away (chmod 600)")]
    Exposed {
        /// Its permissions.
        mode: u32,
    },
    /// It is too long for a secret.
    #[error("it has {MAX_BYTES} bytes or more, too many for a secret")]
    TooLarge,
}

const ROOT: u32 = 0;
const OTHERS: u32 = 0o007;
const GROUP: u32 = 0o070;
const GROUP_WRITES: u32 = 0o030;
/// 32 random bytes are 64 hexadecimal digits; nobody needs more than this.
const MAX_BYTES: usize = 4096;
