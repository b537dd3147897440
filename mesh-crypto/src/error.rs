//! What can go wrong, grouped by whose fault it is.

use std::io;
use std::path::PathBuf;

/// Why an operation of this crate did not succeed.
///
/// Nothing in it depends on secret data: a decryption that fails says only that it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // What a peer sent.
    /// A ciphertext, tag or associated data is not what the holder of the key made.
    #[error("the ciphertext cannot be opened")]
    Open,
    /// A signature does not belong to this message and key.
    #[error("the signature does not verify")]
    Signature,
    /// A message authentication code does not belong to this message and key.
    #[error("the message authentication code does not verify")]
    Mac,
    /// The other side's X25519 share is of low order (RFC 7748 section 6.1), or its ML-KEM key or ciphertext is
    /// malformed (FIPS 203 sections 7.2 and 7.3).
    #[error("the peer's key share is malformed or contributes nothing")]
    Share,
    /// A key that cannot be read or is inconsistent.
    #[error("{what} is malformed")]
    KeyRejected {
        /// What was being read.
        what: &'static str,
    },
    /// An RSA key of a size that is not accepted.
    #[error("an rsa key of {bits} bits is not accepted, use 2048, 3072 or 4096")]
    RsaBits {
        /// The size of its modulus.
        bits: usize,
    },
    /// A stream number that this key granted before, or that is too old to tell.
    #[error("stream number {number} was used before or is too old")]
    Replayed {
        /// The number asked for.
        number: u64,
    },
    /// Bytes that have not the form of an envelope.
    #[error("the envelope {what}")]
    Envelope {
        /// What is wrong with it.
        what: &'static str,
    },

    // Configuration.
    /// Text that is not PEM of the expected kind.
    #[error("the PEM text is malformed: {what}")]
    Pem {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Text that is not a fingerprint.
    #[error("a fingerprint is \"sha256:\" and 64 lower-case hex digits")]
    Fingerprint,
    /// A key of the wrong length.
    #[error("a key of {got} bytes was given where {expected} are needed")]
    KeyLength {
        /// What the algorithm takes.
        expected: usize,
        /// What was given.
        got: usize,
    },

    // Misuse and limits.
    /// The key has sealed as much as it may; make a new one.
    #[error("the key has reached its limit of use, make a new one")]
    Exhausted,
    /// A message longer than the algorithm takes, or an output longer than HKDF gives.
    #[error("{got} bytes are more than the limit of {limit}")]
    Length {
        /// The limit.
        limit: usize,
        /// What was asked for.
        got: usize,
    },
    /// A key that counts its own streams was asked to take a number, or the other way round.
    #[error("the sealing key numbers its streams the other way")]
    Numbering,

    // Environment.
    /// The source of randomness failed.
    #[error("no randomness could be had from the system")]
    Random,
    /// The engine failed where it should not.
    #[error("the cryptographic engine failed to {action}")]
    Engine {
        /// What it was asked to do.
        action: &'static str,
    },
    /// The key store could not be read or written.
    #[error("could not {action} {}", path.display())]
    Store {
        /// What was being done.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A key file or directory that others than its owner can reach.
    #[error("{} has mode {mode:o}, take all rights from group and others (chmod go= FILE)", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file or directory that somebody else could have written.
    #[error("{} belongs to user {owner}, give it to user {user}, who runs this (chown {user} FILE)", path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// The number of the user whose it is.
        owner: u32,
        /// The number of the user that we act as.
        user: u32,
    },
    /// A key that needs a passphrase where none was given.
    #[error("{} is encrypted, give the passphrase of the key store", path.display())]
    Encrypted {
        /// The key file.
        path: PathBuf,
    },
    /// A key that was encrypted with another passphrase, or damaged since.
    #[error("the passphrase does not open {}", path.display())]
    Passphrase {
        /// The key file.
        path: PathBuf,
    },
    /// Something in the key store is not what its name says.
    #[error("{} {what}", path.display())]
    StoreEntry {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}
