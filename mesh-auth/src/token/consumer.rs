//! Consumers: callers that we know ourselves, by a shared secret (HS256) or an API key.
//!
//! # Sources
//! - RFC 7518 section 3.2 (HS256); the meaning of `iss` as the consumer's key is that of Kong's JWT plugin.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::ring::{RingError, check_secret};
use super::{MAX_TOKEN_BYTES, UserTokenError};
use crate::hex::hex;

/// A caller that signs its own tokens with a secret it shares with us.
///
/// Its tokens name its `key` as `iss`. They prove that the consumer sent them and nothing else: subject and groups come
/// from here, and the token's claims count for nothing, since the consumer could write any into it.
#[derive(Clone)]
pub struct Consumer {
    pub(super) name: Arc<str>,
    pub(super) key: Arc<str>,
    pub(super) groups: Vec<Arc<str>>,
    secret: hmac::Key,
}

impl Consumer {
    /// The consumer `name`, whose tokens say `key` as `iss` and are signed with `secret`. The copy of the secret that
    /// this is made from is the caller's to overwrite.
    ///
    /// # Errors
    /// When the secret is too short or can be guessed.
    pub fn new(name: &str, key: &str, secret: &[u8]) -> Result<Self, RingError> {
        check_secret(secret)?;
        Ok(Self {
            name: name.into(),
            key: key.into(),
            groups: Vec::new(),
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
        })
    }

    /// Sets the groups.
    #[must_use]
    pub fn with_groups(mut self, groups: &[&str]) -> Self {
        self.groups = groups.iter().map(|&group| group.into()).collect();
        self
    }

    /// Writes a token of this consumer about `subject` to `audience`, that counts from `now`, in seconds since the Unix
    /// epoch, for `lifetime`.
    ///
    /// # Errors
    /// [`UserTokenError::TooLarge`] when no verifier would look at it, and [`UserTokenError::SpiffeSubject`] when none
    /// would accept it.
    pub fn issue(
        &self,
        subject: &str,
        audience: &str,
        (now, lifetime): (u64, Duration),
    ) -> Result<String, UserTokenError> {
        if is_spiffe(subject) {
            return Err(UserTokenError::SpiffeSubject);
        }
        let header = serde_json::json!({ "alg": "HS256", "typ": "JWT" });
        let claims = serde_json::json!({
            "iss": &*self.key, "sub": subject, "aud": audience,
            "iat": now, "exp": now.saturating_add(lifetime.as_secs()),
        });
        let [header, claims] =
            [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let tag = hmac::sign(&self.secret, message.as_bytes());
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        if token.len() > MAX_TOKEN_BYTES {
            return Err(UserTokenError::TooLarge { bytes: token.len() });
        }
        Ok(token)
    }

    /// In constant time.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.secret, message, signature).is_ok()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("key", &self.key)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

/// A key that a consumer sends with each request: `mk_<id>_<secret>`, 16 and 64 hexadecimal digits.
///
/// Made by [`ApiKey::new`] from random bytes and shown once; what is kept of it is its [`ApiKeyHash`].
pub struct ApiKey {
    text: zeroize::Zeroizing<String>,
}

impl ApiKey {
    /// A key of random bytes: the first 8 name it, the other 32 are secret.
    pub fn new(random: &[u8; RANDOM_BYTES]) -> Self {
        let (id, secret) = random.split_at(ID_BYTES);
        let secret = zeroize::Zeroizing::new(hex(secret));
        Self {
            text: format!("{PREFIX}{}_{}", hex(id), *secret).into(),
        }
    }

    /// The key itself, for the one who will use it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    pub fn hash(&self) -> ApiKeyHash {
        let id = id_of(&self.text).unwrap_or_default();
        ApiKeyHash {
            id: id.into(),
            digest: Sha256::digest(self.text.as_bytes()).into(),
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").finish_non_exhaustive()
    }
}

/// What is kept of an API key: its name and a SHA-256 hash, written `sha256:<id>:<hash>`.
///
/// A plain hash is enough here, unlike for passwords: the key has 256 random bits, so there is nothing to guess that a
/// slow hash would make dearer (NIST SP 800-63B section 5.1.2.2 asks a slow one below 112 bits).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiKeyHash {
    id: Box<str>,
    digest: [u8; 32],
}

impl ApiKeyHash {
    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// [`ApiKeyError`] when the text is anything else.
    pub fn parse(text: &str) -> Result<Self, ApiKeyError> {
        let parts = text
            .strip_prefix("sha256:")
            .and_then(|rest| rest.split_once(':'));
        let (id, digest) = parts.ok_or(ApiKeyError)?;
        let digest = bytes_of(digest).ok_or(ApiKeyError)?;
        if !is_id(id) {
            return Err(ApiKeyError);
        }
        Ok(Self {
            id: id.into(),
            digest,
        })
    }

    /// The public part of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether this is the hash of `key`, in constant time.
    pub(super) fn is_of(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        constant_time::verify_slices_are_equal(&digest, &self.digest).is_ok()
    }
}

impl fmt::Display for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}:{}", self.id, hex(&self.digest))
    }
}

/// The text is no hash of an API key.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
#[error(
    "this is not the hash of an api key; `mesh-node token api-key` prints one: sha256:<id>:<64 digits>"
)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct ApiKeyError;

/// Whether a subject looks like a workload, which a consumer can't vouch for.
pub(super) fn is_spiffe(subject: &str) -> bool {
    let scheme = subject.as_bytes().get(..SPIFFE.len());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE))
}

/// The public part of what may be a key.
pub(super) fn id_of(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    (is_id(id) && secret.len() == 2 * SECRET_BYTES).then_some(id)
}

fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(is_digit)
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn bytes_of(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

const SPIFFE: &[u8] = b"spiffe:";
/// Secret scanners find leaked keys by it.
const PREFIX: &str = "mk_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// Random bytes that an API key is made from.
pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;
