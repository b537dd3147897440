//! Join tokens: how a workload that has no certificate yet shows who it is, once.
//!
//! A token is 256 random bits and stands for one SPIFFE id, for a short time. The authority keeps a
//! [`Grant`] of it: a hash, the id and the end, never the token. Whoever looks a grant up does so by
//! the hash, so the time that takes tells at most of the hash, from which nobody gets a token.
//!
//! A grant is used up by the first key that comes with its token. The same key may come again until
//! the grant ends, so that an answer which was lost on the way can be asked for once more; what it gets
//! is of use to the key's holder alone.

use std::fmt;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{CaError, SERVER};
use crate::hex::hex;
use crate::spiffe::{SpiffeId, SpiffeIdError};

/// How long a token is good unless somebody says otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_mins(10);

/// A token, which whoever holds it can join with. Wiped when dropped, and never printed but by
/// [`JoinToken::expose`].
#[derive(Clone)]
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    /// A fresh token.
    ///
    /// # Errors
    /// [`CaError::Random`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, CaError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice()).map_err(CaError::Random)?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 64));
        text.push_str(PREFIX);
        text.push_str(&Zeroizing::new(hex(secret.as_slice())));
        Ok(Self(text))
    }

    /// Reads a token; space around it does not matter.
    ///
    /// # Errors
    /// [`JoinError::Token`] when the text is no token.
    pub fn parse(text: &str) -> Result<Self, JoinError> {
        let text = text.trim();
        let digits = text.strip_prefix(PREFIX).ok_or(JoinError::Token)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 64 || !digits.bytes().all(is_hex) {
            return Err(JoinError::Token);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The token itself, to be given to whoever may join.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the authority knows it by: SHA-256 of the token, in hex. (256 random bits need no salt and
    /// no slow hash.)
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes()))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// What the authority keeps of a token, written as one line of text.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Grant {
    /// Whoever holds the token becomes this workload.
    pub id: SpiffeId,
    /// When it ends, in seconds since 1970 (UTC).
    pub expires: u64,
    /// The key that it was used with ([`super::csr::SigningRequest::key_fingerprint`]); none yet.
    pub used_by: Option<String>,
}

impl Grant {
    /// A grant that nobody has used.
    ///
    /// # Errors
    /// [`JoinError::Id`] when the id names no workload, or is that of the authority's own server.
    pub fn new(id: SpiffeId, ttl: Duration, now: SystemTime) -> Result<Self, JoinError> {
        if id.path().is_empty() || id.service() == SERVER {
            return Err(JoinError::Id { id });
        }
        let expires = seconds(now).saturating_add(ttl.as_secs());
        Ok(Self {
            id,
            expires,
            used_by: None,
        })
    }

    /// The grant once `key` has come with its token at `now`.
    ///
    /// # Errors
    /// [`JoinError::Expired`], or [`JoinError::Used`] when another key came before.
    pub fn used(self, key: &str, now: SystemTime) -> Result<Self, JoinError> {
        if self.is_expired(now) {
            return Err(JoinError::Expired);
        }
        match &self.used_by {
            Some(first) if first != key => Err(JoinError::Used),
            _ => Ok(Self {
                used_by: Some(key.to_owned()),
                ..self
            }),
        }
    }

    /// Whether it has ended.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        seconds(now) >= self.expires
    }

    /// Reads what [`fmt::Display`] wrote.
    ///
    /// # Errors
    /// [`JoinError::Grant`] or [`JoinError::GrantId`] when the text is no grant.
    pub fn parse(text: &str) -> Result<Self, JoinError> {
        let mut words = text.split_ascii_whitespace();
        let mut word = || words.next().ok_or(JoinError::Grant);
        if word()? != VERSION {
            return Err(JoinError::Grant);
        }
        let id = SpiffeId::parse(word()?).map_err(JoinError::GrantId)?;
        let expires = word()?.parse().or(Err(JoinError::Grant))?;
        let used_by = match word()? {
            UNUSED => None,
            key => Some(key.to_owned()),
        };
        if words.next().is_some() {
            return Err(JoinError::Grant);
        }
        Ok(Self {
            id,
            expires,
            used_by,
        })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used_by = self.used_by.as_deref().unwrap_or(UNUSED);
        write!(f, "{VERSION} {} {} {used_by}", self.id, self.expires)
    }
}

/// Why nobody joins.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum JoinError {
    /// The text is no token.
    #[error("the text is no join token; one begins with {PREFIX}")]
    Token,
    /// The id can't be joined as.
    #[error("{id} is not a workload that can join")]
    Id {
        /// The refused id.
        id: SpiffeId,
    },
    /// The token's time is over.
    #[error("the join token has expired; make a new one")]
    Expired,
    /// Another key has used the token.
    #[error("the join token was used already; make a new one")]
    Used,
    /// What the authority keeps of a token is damaged.
    #[error("the grant is damaged")]
    Grant,
    /// The id that the authority keeps of a token is damaged.
    #[error("the grant's id is damaged")]
    GrantId(#[source] SpiffeIdError),
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// So that scanners for leaked secrets know one when they see it.
const PREFIX: &str = "mesh-join-";
const VERSION: &str = "grant-1";
const UNUSED: &str = "-";

#[cfg(test)]
mod tests;
