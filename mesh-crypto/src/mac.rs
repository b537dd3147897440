//! HMAC-SHA256, whole tags only, compared in constant time.
//!
//! # Sources
//!
//! RFC 2104, FIPS 198-1; vectors of RFC 4231.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::Error;
use crate::engine::MacOps;

/// A parsed HMAC-SHA256 key, from [`Engine::mac_key`](crate::Engine::mac_key).
pub struct MacKey(Box<dyn MacOps>);

impl MacKey {
    /// Bytes of a tag.
    pub const TAG_LEN: usize = 32;

    pub(crate) fn new(ops: Box<dyn MacOps>) -> Self {
        Self(ops)
    }

    /// The tag of the parts as one message. Where one part ends is not covered: fix it by length or position.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; Self::TAG_LEN] {
        self.0.sign(parts)
    }

    /// Checks a tag in constant time.
    ///
    /// # Errors
    ///
    /// [`Error::Mac`] if it is not exactly the 32 bytes that [`sign`](Self::sign) gives.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> Result<(), Error> {
        if bool::from(self.sign(parts).as_slice().ct_eq(tag)) {
            Ok(())
        } else {
            Err(Error::Mac)
        }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(redacted)")
    }
}
