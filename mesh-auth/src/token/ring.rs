//! Secrets and the times in which they count.

use std::fmt;

use jsonwebtoken::{DecodingKey, EncodingKey};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::hex::hex;

/// Fewest bytes of a secret: the length of the hash (RFC 7518 section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Most keys in a ring; a rotation needs two.
pub const MAX_KEYS: usize = 16;

/// One secret, the name it goes by, and when it counts.
///
/// The secret can't be read out, is not printed, and is overwritten in memory when the key is
/// dropped. The copy that the key is made from is the caller's to overwrite.
#[derive(Clone)]
pub struct RingKey {
    kid: String,
    not_before: u64,
    not_after: u64,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl RingKey {
    /// A key that counts always, under a name derived from the secret, so that nodes which share the
    /// secret agree on the name.
    ///
    /// # Errors
    /// When the secret is too short or can be guessed.
    pub fn new(secret: &[u8]) -> Result<Self, RingError> {
        check_secret(secret)?;
        let digest = Sha256::new()
            .chain_update(b"mesh-auth kid 1\0")
            .chain_update(secret)
            .finalize();
        let kid = hex(digest.get(..KID_BYTES).unwrap_or_default());
        Ok(Self {
            kid,
            not_before: 0,
            not_after: u64::MAX,
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
        })
    }

    /// Sets the name.
    #[must_use]
    pub fn with_kid(mut self, kid: &str) -> Self {
        kid.clone_into(&mut self.kid);
        self
    }

    /// Sets the first second in which the key signs, since the Unix epoch. It verifies before that
    /// too: another node's clock may be ahead of ours.
    #[must_use]
    pub fn with_not_before(mut self, seconds: u64) -> Self {
        self.not_before = seconds;
        self
    }

    /// Sets the first second in which the key neither signs nor verifies any more.
    #[must_use]
    pub fn with_not_after(mut self, seconds: u64) -> Self {
        self.not_after = seconds;
        self
    }

    /// The name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The first second in which the key signs.
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// The first second in which the key does not count any more.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    pub(super) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingKey")
            .field("kid", &self.kid)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The secrets in use, old and new side by side while one replaces the other.
///
/// To rotate: add the new key everywhere with a `not_before` a little ahead, then give the old one a
/// `not_after` at least one token lifetime behind that.
#[derive(Clone, Debug)]
pub struct Ring {
    keys: Vec<RingKey>,
}

impl Ring {
    /// A ring of the given keys. The newest by `not_before` signs, and of several the first that is given.
    ///
    /// # Errors
    /// When there is no key or more than [`MAX_KEYS`], two have the same name, a name is unusable,
    /// or a key's time ends before it starts.
    pub fn new(mut keys: Vec<RingKey>) -> Result<Self, RingError> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(RingError::Size { keys: keys.len() });
        }
        // Of keys with the same time the first that was given stays first.
        keys.sort_by_key(|key| std::cmp::Reverse(key.not_before));
        for (at, key) in keys.iter().enumerate() {
            if key.kid.is_empty() || key.kid.len() > MAX_KID_BYTES {
                return Err(RingError::Kid);
            }
            if key.not_after <= key.not_before {
                return Err(RingError::NeverValid {
                    kid: key.kid.clone(),
                });
            }
            if keys.iter().skip(at + 1).any(|other| other.kid == key.kid) {
                return Err(RingError::DuplicateKid {
                    kid: key.kid.clone(),
                });
            }
        }
        Ok(Self { keys })
    }

    /// A ring of one secret that counts always.
    ///
    /// # Errors
    /// When the secret is too short or can be guessed.
    pub fn single(secret: &[u8]) -> Result<Self, RingError> {
        Self::new(vec![RingKey::new(secret)?])
    }

    /// The keys, newest first.
    pub fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// The name of the key that signs at `now`, in seconds since the Unix epoch.
    pub fn signing_kid(&self, now: u64) -> Option<&str> {
        self.signing_key(now).map(RingKey::kid)
    }

    /// The newest key whose time has come.
    pub(super) fn signing_key(&self, now: u64) -> Option<&RingKey> {
        self.keys
            .iter()
            .find(|key| key.not_before <= now && now < key.not_after)
    }

    /// The key of that name; a token without a name can only mean the only key.
    pub(super) fn verifying_key(&self, kid: Option<&str>, now: u64) -> Option<&RingKey> {
        let key = match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid == kid),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        key.filter(|key| now < key.not_after)
    }
}

/// Why a secret or a ring was refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RingError {
    /// The secret is too short for HS256.
    #[error(
        "a secret of {bytes} bytes is shorter than {MIN_SECRET_BYTES}; make one with: openssl rand -base64 48"
    )]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// The secret is a repetition, a sequence, or has hardly any different bytes.
    #[error(
        "the secret can be guessed: it repeats itself or counts; make one with: openssl rand -base64 48"
    )]
    Guessable,
    /// The secret is an example that was never replaced.
    #[error("the secret is a placeholder from an example; make one with: openssl rand -base64 48")]
    Placeholder,
    /// The ring has no key or too many.
    #[error("a ring has 1 to {MAX_KEYS} keys, not {keys}")]
    Size {
        /// Number of keys.
        keys: usize,
    },
    /// A key's name is empty or longer than 64 bytes.
    #[error("the kid of a key has 1 to {MAX_KID_BYTES} bytes")]
    Kid,
    /// Two keys have the same name.
    #[error("two keys have the kid {kid}")]
    DuplicateKid {
        /// The name.
        kid: String,
    },
    /// A key's time ends before it starts.
    #[error("the key {kid} ends before it starts")]
    NeverValid {
        /// The key's name.
        kid: String,
    },
}

pub(super) fn check_secret(secret: &[u8]) -> Result<(), RingError> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(RingError::TooShort {
            bytes: secret.len(),
        });
    }
    let mut seen = [false; 256];
    for &byte in secret {
        if let Some(slot) = seen.get_mut(usize::from(byte)) {
            *slot = true;
        }
    }
    let distinct = seen.iter().filter(|&&seen| seen).count();
    let repeats = (1..=secret.len() / 2).any(|period| {
        secret
            .iter()
            .zip(secret.iter().skip(period))
            .all(|(a, b)| a == b)
    });
    let step = |pair: &[u8]| matches!(pair, [a, b] if b.wrapping_sub(*a) == first_step(secret));
    if distinct < MIN_DISTINCT_BYTES || repeats || secret.windows(2).all(step) {
        return Err(RingError::Guessable);
    }
    let lower: Zeroizing<Vec<u8>> = Zeroizing::new(secret.to_ascii_lowercase());
    let holds = |word: &&str| {
        lower
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    };
    if PLACEHOLDERS.iter().any(holds) {
        return Err(RingError::Placeholder);
    }
    Ok(())
}

fn first_step(secret: &[u8]) -> u8 {
    match secret {
        [a, b, ..] => b.wrapping_sub(*a),
        _ => 0,
    }
}

/// 32 random bytes as hex have at least this many different ones with overwhelming probability.
const MIN_DISTINCT_BYTES: usize = 8;

/// A kid derived from a secret shows 64 bits of its hash: enough to tell keys apart.
const KID_BYTES: usize = 8;

const MAX_KID_BYTES: usize = 64;

/// Words of secrets that were copied from documentation.
const PLACEHOLDERS: [&str; 9] = [
    "changeme",
    "change-me",
    "change_me",
    "change-in-prod",
    "change-this",
    "your-secret",
    "your_secret",
    "your-256-bit-secret",
    "placeholder",
];
