//! HKDF-SHA256: many keys from one shared secret.
//!
//! # Sources
//!
//! RFC 5869; it is built on the engine's HMAC, so that every engine derives the same.

use zeroize::Zeroize;
use zeroize::Zeroizing;

use crate::Engine;
use crate::Error;
use crate::MacKey;
use crate::Secret;

/// What HKDF extracted: a key that gives as many others as there are different `info`s.
#[derive(Debug)]
pub struct Prk(MacKey);

impl Prk {
    /// HKDF-Extract (RFC 5869 section 2.2); the secret may come in parts of fixed lengths.
    pub fn extract(engine: &dyn Engine, salt: &[u8], secret: &[&[u8]]) -> Self {
        let prk = Zeroizing::new(engine.mac_key(salt).sign(secret));
        Self(engine.mac_key(prk.as_slice()))
    }

    /// A key that is pseudorandom already, as one that HKDF expanded before is (RFC 5869 section 3.3).
    pub fn from_secret(engine: &dyn Engine, secret: &Secret) -> Self {
        Self(engine.mac_key(secret.expose()))
    }

    /// HKDF-Expand (RFC 5869 section 2.3) of the parts of `info` as one, into all of `out`.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if `out` is longer than 8,160 bytes or `info` has more than 5 parts.
    pub fn expand(&self, info: &[&[u8]], out: &mut [u8]) -> Result<(), Error> {
        if out.len() > 255 * MacKey::TAG_LEN {
            return Err(Error::Length {
                limit: 255 * MacKey::TAG_LEN,
                got: out.len(),
            });
        }
        if info.len() > INFO_PARTS {
            return Err(Error::Length {
                limit: INFO_PARTS,
                got: info.len(),
            });
        }
        let mut previous = Zeroizing::new([0_u8; MacKey::TAG_LEN]);
        for (chunk, counter) in out.chunks_mut(MacKey::TAG_LEN).zip(1..=u8::MAX) {
            let mut parts: [&[u8]; INFO_PARTS + 2] = [&[]; INFO_PARTS + 2];
            if counter > 1 {
                parts[0] = previous.as_slice();
            }
            parts[1..=info.len()].copy_from_slice(info);
            let counter = [counter];
            parts[INFO_PARTS + 1] = &counter;
            let mut block = self.0.sign(&parts);
            chunk.copy_from_slice(&block[..chunk.len()]);
            *previous = block;
            block.zeroize();
        }
        Ok(())
    }
}

const INFO_PARTS: usize = 5;
