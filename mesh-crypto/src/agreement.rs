//! A secret that only the two ends of one exchange know, and neither keeps: X25519 and ML-KEM-768.
//!
//! # Sources
//!
//! RFC 7748 sections 5 and 6.1 (X25519), FIPS 203 sections 6 to 8 (ML-KEM-768).

use std::fmt;

use crate::Error;
use crate::Secret;
use crate::engine::AgreementOps;
use crate::engine::KemOps;

/// A private X25519 key with its public share, from [`Engine::x25519_key`](crate::Engine::x25519_key).
pub struct X25519Key {
    share: [u8; 32],
    ops: Box<dyn AgreementOps>,
}

impl X25519Key {
    pub(crate) fn new(share: [u8; 32], ops: Box<dyn AgreementOps>) -> Self {
        Self { share, ops }
    }

    /// The public share, for the peer.
    pub fn share(&self) -> &[u8; 32] {
        &self.share
    }

    /// The 32-byte secret shared with the owner of `peer`.
    ///
    /// # Errors
    ///
    /// [`Error::Share`] if `peer` is a point of low order, whose secret would be known to everybody.
    pub fn agree(&self, peer: &[u8; 32]) -> Result<Secret, Error> {
        self.ops.agree(peer)
    }
}

impl fmt::Debug for X25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X25519Key(redacted)")
    }
}

/// A private ML-KEM-768 decapsulation key with its encapsulation key, from
/// [`Engine::ml_kem_768_key`](crate::Engine::ml_kem_768_key).
///
/// The other end makes a secret and its ciphertext of the encapsulation key with
/// [`Engine::ml_kem_768_encapsulate`](crate::Engine::ml_kem_768_encapsulate).
pub struct MlKem768Key {
    ek: Box<[u8; Self::EK_LEN]>,
    ops: Box<dyn KemOps>,
}

impl MlKem768Key {
    /// Bytes of the encapsulation key (FIPS 203 table 3).
    pub const EK_LEN: usize = 1184;
    /// Bytes of a ciphertext (FIPS 203 table 3).
    pub const CIPHERTEXT_LEN: usize = 1088;

    pub(crate) fn new(ek: Box<[u8; Self::EK_LEN]>, ops: Box<dyn KemOps>) -> Self {
        Self { ek, ops }
    }

    /// The encapsulation key, for the peer.
    pub fn ek(&self) -> &[u8; Self::EK_LEN] {
        &self.ek
    }

    /// The 32-byte secret that `ciphertext` holds.
    ///
    /// A ciphertext that was not made of [`ek`](Self::ek) gives another secret, always the same one for the same
    /// ciphertext, that only this key can compute (implicit rejection, FIPS 203 section 6.3): what it was shows
    /// later, as a key that opens nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Share`] if `ciphertext` is not 1,088 bytes long.
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, Error> {
        self.ops
            .decapsulate(ciphertext.try_into().or(Err(Error::Share))?)
    }
}

impl fmt::Debug for MlKem768Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MlKem768Key(redacted)")
    }
}
