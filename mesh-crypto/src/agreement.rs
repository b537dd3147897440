//! X25519: a secret that only the two ends of one exchange know, and neither keeps.
//!
//! # Sources
//!
//! RFC 7748 sections 5 and 6.1.

use std::fmt;

use crate::Error;
use crate::Secret;
use crate::engine::AgreementOps;

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
