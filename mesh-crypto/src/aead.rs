//! AES-GCM whose nonces cannot repeat.
//!
//! A [`SealingKey`] grants every stream number at most once in its life, and a [`SealingStream`] uses every index at
//! most once; the 96-bit nonce is the number, then the index, XOR the key's IV. No function takes a nonce to seal
//! with, and neither type can be cloned, so that a dropped, cancelled or failed operation wastes a nonce and never
//! repeats one. A key that replaces another ([`SealingKey::successor`]) and one that comes back
//! ([`SealingKey::park`]) go on with the same numbers, so a stream may change its key and still repeats nothing.
//!
//! # Sources
//!
//! NIST SP 800-38D sections 5.2.1.1 and 8.2.1 (deterministic nonces), RFC 8446 section 5.3 (XOR with an IV),
//! draft-irtf-cfrg-aead-limits section 5.1.1 (how much one key may seal).

mod numbers;
mod window;

use std::fmt;
use std::sync::Arc;

use crate::Error;
use crate::aead::numbers::Numbers;
use crate::aead::numbers::Spent;
use crate::engine::AeadOps;
use crate::engine::NONCE_LEN;
use crate::engine::TAG_LEN;

/// AES-GCM (NIST SP 800-38D) by key size.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum AeadAlgorithm {
    /// 128-bit key.
    Aes128Gcm,
    /// 192-bit key.
    Aes192Gcm,
    /// 256-bit key.
    Aes256Gcm,
}

impl AeadAlgorithm {
    /// Bytes of key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes192Gcm => 24,
            Self::Aes256Gcm => 32,
        }
    }
}

/// A parsed AES-GCM key, from [`Engine::aead_key`](crate::Engine::aead_key). It does nothing until it is made a
/// [`SealingKey`] or an [`OpeningKey`].
pub struct AeadKey {
    algorithm: AeadAlgorithm,
    ops: Box<dyn AeadOps>,
}

impl AeadKey {
    /// Bytes of the tag that sealing gives.
    pub const TAG_LEN: usize = TAG_LEN;
    /// Bytes of the IV that a key is set up with.
    pub const IV_LEN: usize = NONCE_LEN;

    pub(crate) fn new(algorithm: AeadAlgorithm, ops: Box<dyn AeadOps>) -> Self {
        Self { algorithm, ops }
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AeadKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// A key that seals, and sees to it that no nonce is used twice under it.
pub struct SealingKey {
    key: AeadKey,
    iv: [u8; NONCE_LEN],
    numbers: Arc<Numbers>,
    spent: Spent,
}

impl SealingKey {
    /// A key that numbers its streams itself: 0, 1, 2 and so on.
    pub fn counting(key: AeadKey, iv: [u8; AeadKey::IV_LEN]) -> Self {
        Self::new(key, iv, Numbers::counted())
    }

    /// A key whose stream numbers somebody else chooses; each is granted once, in any order within a window of at
    /// least `window` numbers (rounded up to a multiple of 64, at most 65,536) below the highest one.
    pub fn claiming(key: AeadKey, iv: [u8; AeadKey::IV_LEN], window: u32) -> Self {
        Self::new(key, iv, Numbers::claimed(window))
    }

    fn new(key: AeadKey, iv: [u8; NONCE_LEN], numbers: Numbers) -> Self {
        Self {
            key,
            iv,
            numbers: Arc::new(numbers),
            spent: Spent::new(0),
        }
    }

    /// A fresh key that goes on with the numbers of this one: what one of the two granted, the other does not. The
    /// count of blocks begins anew.
    #[must_use]
    pub fn successor(&self, key: AeadKey, iv: [u8; AeadKey::IV_LEN]) -> Self {
        Self {
            key,
            iv,
            numbers: Arc::clone(&self.numbers),
            spent: Spent::new(0),
        }
    }

    /// Gives up the expanded key, which is large, and keeps what must not be forgotten: the numbers and the count of
    /// blocks. It needs the key whole, so no stream of it is left.
    pub fn park(self) -> ParkedKey {
        self.numbers.pack();
        ParkedKey {
            numbers: self.numbers,
            blocks: self.spent.blocks(),
        }
    }

    /// Starts the next stream of a counting key.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] after 2^63 streams, [`Error::Numbering`] if the key is a claiming one.
    pub fn next_stream(self: &Arc<Self>) -> Result<SealingStream, Error> {
        let number = self.numbers.next()?;
        Ok(self.stream(number))
    }

    /// Starts stream `number` of a claiming key.
    ///
    /// # Errors
    ///
    /// [`Error::Replayed`] if the number was granted before or lies below the window, [`Error::Exhausted`] if it is
    /// 2^63 or more, [`Error::Numbering`] if the key is a counting one.
    pub fn claim_stream(self: &Arc<Self>, number: u64) -> Result<SealingStream, Error> {
        self.numbers.claim(number)?;
        Ok(self.stream(number))
    }

    fn stream(self: &Arc<Self>, number: u64) -> SealingStream {
        SealingStream {
            key: Arc::clone(self),
            number,
            index: 0,
        }
    }

    /// AES blocks of 16 bytes spent so far; sealing stops at 2^34.
    pub fn blocks(&self) -> u64 {
        self.spent.blocks()
    }

    fn spend(&self, aad: usize, len: usize) -> Result<(), Error> {
        // One block for the tag, the rest as GHASH and the counter mode see them.
        let blocks = 1 + aad.div_ceil(16) + len.div_ceil(16);
        self.spent
            .spend(u64::try_from(blocks).unwrap_or(u64::MAX >> 1))
    }
}

// The IVs of a session are derived in secret, so neither kind of key shows its own.
impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey")
            .field("key", &self.key)
            .field("numbers", &self.numbers)
            .field("spent", &self.spent)
            .finish_non_exhaustive()
    }
}

/// What is left of a [`SealingKey`] that was put aside: some hundred bytes, and no key.
#[derive(Debug)]
pub struct ParkedKey {
    numbers: Arc<Numbers>,
    blocks: u64,
}

impl ParkedKey {
    /// The key again, from the same bytes as before; numbers and blocks go on where they were.
    #[must_use]
    pub fn unpark(self, key: AeadKey, iv: [u8; AeadKey::IV_LEN]) -> SealingKey {
        SealingKey {
            key,
            iv,
            numbers: self.numbers,
            spent: Spent::new(self.blocks),
        }
    }
}

/// One stream under a [`SealingKey`]: its messages carry the indexes 0, 1, 2 and so on.
///
/// It cannot be cloned; dropping it abandons its number for good.
#[derive(Debug)]
pub struct SealingStream {
    key: Arc<SealingKey>,
    number: u64,
    index: u64,
}

impl SealingStream {
    /// Encrypts `in_out` in place, binds `aad`, and returns the tag.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] after 2^32 messages of this stream or 2^34 blocks of its key, [`Error::Engine`] if the
    /// engine fails; the index is spent then, and `in_out` must not be sent.
    pub fn seal(&mut self, aad: &[u8], in_out: &mut [u8]) -> Result<[u8; AeadKey::TAG_LEN], Error> {
        let index = u32::try_from(self.index).or(Err(Error::Exhausted))?;
        self.index += 1;
        self.key.spend(aad.len(), in_out.len())?;
        self.key
            .key
            .ops
            .seal(nonce(&self.key.iv, self.number, index), aad, in_out)
    }

    /// Goes on under `key`, a successor of the stream's own or the other way round; the index goes on too.
    ///
    /// # Errors
    ///
    /// [`Error::Numbering`] if `key` does not share the numbers of the stream's key; nothing is changed then.
    pub fn continue_under(&mut self, key: &Arc<SealingKey>) -> Result<(), Error> {
        if !Arc::ptr_eq(&self.key.numbers, &key.numbers) {
            return Err(Error::Numbering);
        }
        self.key = Arc::clone(key);
        Ok(())
    }

    /// The number of this stream.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The index that the next message gets.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] after 2^32 messages.
    pub fn next_index(&self) -> Result<u32, Error> {
        u32::try_from(self.index).or(Err(Error::Exhausted))
    }
}

/// A key that opens. Which messages it may see, and how often, is for the caller to check.
pub struct OpeningKey {
    key: AeadKey,
    iv: [u8; NONCE_LEN],
}

impl OpeningKey {
    /// The other end of a [`SealingKey`] with the same key and IV.
    pub fn new(key: AeadKey, iv: [u8; AeadKey::IV_LEN]) -> Self {
        Self { key, iv }
    }

    /// Decrypts `in_out` in place if it, `aad` and `tag` are what was sealed as message `index` of stream `number`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if not; `in_out` holds nothing of use then.
    pub fn open(
        &self,
        at: (u64, u32),
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Error> {
        if tag.len() != TAG_LEN {
            return Err(Error::Open);
        }
        self.key
            .ops
            .open(nonce(&self.iv, at.0, at.1), aad, in_out, tag)
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpeningKey")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The nonce of message `index` of stream `number`: a bijection of the two, whatever the IV is.
fn nonce(iv: &[u8; NONCE_LEN], number: u64, index: u32) -> [u8; NONCE_LEN] {
    let mut out = *iv;
    let position = number.to_be_bytes().into_iter().chain(index.to_be_bytes());
    for (byte, position) in out.iter_mut().zip(position) {
        *byte ^= position;
    }
    out
}

#[cfg(test)]
#[cfg(all(not(loom), any(feature = "aws-lc", feature = "rustcrypto")))]
mod tests;
