//! The hash chain: its digests, its optional key, and the head that pins it.
//!
//! # Sources
//!
//! SHA-256: FIPS 180-4. HMAC: RFC 2104, checked against the vectors of RFC 4231.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::{KeyError, ParseError};

/// The hash of one record, which covers everything before it.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct RecordHash([u8; 32]);

impl RecordHash {
    /// What the first record names as its predecessor: 32 zero bytes.
    pub const ZERO: Self = Self([0; 32]);

    /// Takes raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lower-case hexadecimal digits that stand in the file.
    pub(crate) fn hex(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    /// Reads 64 lower-case hexadecimal digits, and nothing else.
    pub(crate) fn from_hex(text: &[u8]) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Compares without an early exit, so that guessing a keyed hash learns nothing from time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        let differing = self
            .0
            .iter()
            .zip(other.0)
            .fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordHash({self})")
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for RecordHash {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::from_hex(text.as_bytes()).ok_or(ParseError::Hash)
    }
}

/// A point in the chain: the number of a record and its hash.
///
/// Whoever keeps a head somewhere else can later prove that nothing up to it was changed or cut.
/// Written and read as `SEQ:HASH`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Head {
    /// The number of the record, from 1.
    pub seq: u64,
    /// Its hash.
    pub hash: RecordHash,
}

impl Head {
    /// Before the first record.
    pub const EMPTY: Self = Self {
        seq: 0,
        hash: RecordHash::ZERO,
    };

    /// Names the record `seq` with this hash.
    pub const fn new(seq: u64, hash: RecordHash) -> Self {
        Self { seq, hash }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (seq, hash) = text.split_once(':').ok_or(ParseError::Head)?;
        let is_number = !seq.is_empty() && seq.bytes().all(|b| b.is_ascii_digit());
        match seq.parse() {
            Ok(seq) if is_number => Ok(Self {
                seq,
                hash: hash.parse()?,
            }),
            _ => Err(ParseError::Head),
        }
    }
}

/// A secret without which no one can re-seal a changed log.
///
/// With a key every hash is an HMAC-SHA256 instead of a SHA-256. Keep it where those who can write
/// the file can't read it. It is wiped from memory when dropped.
#[derive(Clone)]
pub struct ChainKey {
    block: Zeroizing<[u8; BLOCK]>,
}

impl ChainKey {
    /// The fewest bytes of a key: the output size of the hash (RFC 2104, section 3).
    pub const MIN_BYTES: usize = 32;

    /// Takes at least 32 secret random bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooShort`] with fewer than [`ChainKey::MIN_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() < Self::MIN_BYTES {
            return Err(KeyError::TooShort {
                found: bytes.len(),
                least: Self::MIN_BYTES,
            });
        }
        Ok(Self::padded(bytes))
    }

    /// The key as one hash block, as RFC 2104 section 2 has it.
    fn padded(bytes: &[u8]) -> Self {
        let mut block = Zeroizing::new([0; BLOCK]);
        if bytes.len() <= BLOCK {
            block[..bytes.len()].copy_from_slice(bytes);
        } else {
            block[..32].copy_from_slice(&Sha256::digest(bytes));
        }
        Self { block }
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(…)")
    }
}

/// Computes record hashes, keyed or not.
#[derive(Clone)]
pub(crate) struct Sealer {
    /// The state before a record: fresh, or after the inner key block.
    inner: Sha256,
    /// The state after the outer key block, if there is a key.
    outer: Option<Sha256>,
}

impl Sealer {
    pub(crate) fn new(key: Option<&ChainKey>) -> Self {
        let Some(key) = key else {
            return Self {
                inner: Sha256::new(),
                outer: None,
            };
        };
        let state = |pad: u8| {
            let block = Zeroizing::new(key.block.map(|byte| byte ^ pad));
            Sha256::new_with_prefix(*block)
        };
        Self {
            inner: state(0x36),
            outer: Some(state(0x5c)),
        }
    }

    /// Hashes a record given without its `hash` member: `open` lacks the closing brace.
    pub(crate) fn seal(&self, open: &[u8]) -> RecordHash {
        self.digest(&[open, b"}"])
    }

    /// A public name for the key, so that a wrong key is told from a changed log.
    pub(crate) fn key_id(&self) -> Option<[u8; 16]> {
        self.outer.as_ref()?;
        self.digest(&[b"mesh-audit key id"])
            .hex()
            .first_chunk()
            .copied()
    }

    fn digest(&self, parts: &[&[u8]]) -> RecordHash {
        let mut hash = self.inner.clone();
        for part in parts {
            hash.update(part);
        }
        let digest = hash.finalize();
        let digest = match &self.outer {
            None => digest,
            Some(outer) => outer.clone().chain_update(digest).finalize(),
        };
        RecordHash(digest.into())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.outer.is_some() {
            "Sealer(hmac-sha256)"
        } else {
            "Sealer(sha256)"
        })
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Bytes in a SHA-256 block (FIPS 180-4, section 1).
const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn hmac(key: &[u8], data: &[u8]) -> String {
        Sealer::new(Some(&ChainKey::padded(key)))
            .digest(&[data])
            .to_string()
    }

    #[test]
    fn agrees_with_the_hmac_vectors_of_rfc_4231() {
        // Test cases 1, 2 and 6 (section 4).
        assert_eq!(
            hmac(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hmac(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hmac(
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            ),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn refuses_a_short_key() {
        assert_eq!(
            ChainKey::from_bytes(&[1; 31]).unwrap_err(),
            KeyError::TooShort {
                found: 31,
                least: 32
            }
        );
    }

    #[test]
    fn a_head_survives_being_written_down() {
        let head = Head::new(42, Sealer::new(None).seal(b"{"));
        assert_eq!(head.to_string().parse(), Ok(head));
        for wrong in ["", "42", "+42:00", "42:00", ":", "x:00"] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn never_shows_a_key() {
        let key = ChainKey::from_bytes(&[b'k'; 32]).unwrap();
        assert_eq!(
            format!("{key:?} {:?}", Sealer::new(Some(&key))),
            "ChainKey(…) Sealer(hmac-sha256)"
        );
    }
}
