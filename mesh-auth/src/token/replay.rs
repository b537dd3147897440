//! Tokens that count once: the names (`jti`) of those that were used, until they expire.

use std::collections::HashMap;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::UserTokenError;
use super::remember::Fingerprint;

/// Names of used tokens, in bounded memory: at most 48 bytes each and twice that while the table grows.
#[derive(Debug)]
pub(super) struct UsedOnce {
    used: Mutex<HashMap<Fingerprint, u64>>,
    capacity: usize,
}

impl UsedOnce {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            used: Mutex::default(),
            capacity,
        }
    }

    /// Notes that the token `id` of `issuer` is used, which counts until `until`.
    ///
    /// A full table is first rid of what has expired; where that is nothing, the token is refused: to forget a name is
    /// to let its token in again.
    pub(super) fn claim(
        &self,
        issuer: &str,
        id: &str,
        (now, until): (u64, u64),
    ) -> Result<(), UserTokenError> {
        let key = Sha256::new()
            .chain_update(issuer.len().to_le_bytes())
            .chain_update(issuer)
            .chain_update(id)
            .finalize()
            .into();
        let mut used = self.used.lock();
        if used.get(&key).is_some_and(|&until| now < until) {
            return Err(UserTokenError::Replayed);
        }
        if used.len() >= self.capacity {
            used.retain(|_key, until| now < *until);
        }
        if used.len() >= self.capacity {
            return Err(UserTokenError::TooManyInUse {
                tokens: self.capacity,
            });
        }
        used.insert(key, until);
        Ok(())
    }
}
