//! One-shot envelopes: data from one RSA key to one other, for files and queues.
//!
//! An envelope is sealed to its recipient and signed by its sender, whom the recipient knows before the first byte of
//! the data is given out. `ENVELOPE.md` has every byte, the derivation and the argument; in short: a fresh secret under
//! RSA-OAEP, HKDF-SHA256 for key and key commitment, a PSS signature over the header, AES-256-GCM over chunks of 64 KiB
//! of which the last is flagged.
//!
//! ```rust
//! use mesh_crypto::envelope::{self, Envelope};
//! use mesh_crypto::{RsaBits, RsaKeyPair, SystemRandom, engine::aws_lc};
//!
//! # fn main() -> Result<(), mesh_crypto::Error> {
//! let (engine, random) = (aws_lc(), SystemRandom::new());
//! let sender = RsaKeyPair::generate(&*engine, RsaBits::B2048)?;
//! let recipient = RsaKeyPair::generate(&*engine, RsaBits::B2048)?;
//!
//! let envelope = Envelope::new(&*engine, &random).with_aad(b"invoice 17");
//! let sealed = envelope.encrypt(b"three boxes", recipient.public(), &sender)?;
//!
//! assert_eq!(envelope::peek(&sealed)?.recipient, recipient.public().fingerprint());
//! assert_eq!(envelope.decrypt(&sealed, &recipient, sender.public())?, b"three boxes");
//! # Ok(())
//! # }
//! ```
//!
//! # What an envelope does not do
//!
//! - It has no forward secrecy: who steals the recipient's key opens everything that was ever sealed to it.
//! - It proves its sender to its recipient and to nobody else. The recipient holds the key of the chunks and could
//!   have written them itself, so an envelope is no signature of its content for third parties.
//! - It hides neither its length nor the fingerprints of both keys, and who can guess the associated data can check the
//!   guess with the sender's public key.
//! - It may arrive twice. Put a message id in the associated data ([`Envelope::with_aad`]) and remember it.
//! - It holds at most 256 GiB.
//!
//! # Sources
//!
//! RFC 8017 sections 7.1 and 8.1 (OAEP, PSS), RFC 5869 (HKDF), NIST SP 800-38D (GCM), Hoang, Reyhanitabar, Rogaway and
//! Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015, section 7 (STREAM).

mod header;
mod open;
mod seal;
mod stream;

use std::fmt;
use std::io::Read;
use std::io::Write;

pub use open::Decryptor;
pub use seal::Encryptor;
pub use stream::DecryptReader;
pub use stream::EncryptWriter;
pub use stream::StreamError;

use zeroize::Zeroize;

use crate::Engine;
use crate::Error;
use crate::Fingerprint;
use crate::Random;
use crate::RsaKeyPair;
use crate::RsaPublicKey;
use crate::aead::AeadKey;

/// Seals and opens envelopes: an engine, a source of randomness, and the associated data that both sides know.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    engine: &'a dyn Engine,
    random: &'a dyn Random,
    aad: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Envelopes without associated data.
    pub const fn new(engine: &'a dyn Engine, random: &'a dyn Random) -> Self {
        Self {
            engine,
            random,
            aad: &[],
        }
    }

    /// Binds `aad`, which the envelope does not carry: it opens only where the same bytes are given. A message id, a
    /// file name or a purpose belongs here. Default: empty.
    #[must_use]
    pub const fn with_aad(self, aad: &'a [u8]) -> Self {
        Self { aad, ..self }
    }

    /// Seals `data` to the holder of `to`, in the name of `from`.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] or [`Error::Engine`] if either fails, [`Error::Exhausted`] above 256 GiB.
    pub fn encrypt(
        &self,
        data: &[u8],
        to: &RsaPublicKey,
        from: &RsaKeyPair,
    ) -> Result<Vec<u8>, Error> {
        let mut encryptor = self.encryptor(to, from)?;
        // One tag a chunk, and one chunk where there is no data.
        let tags = data.len().div_ceil(CHUNK_LEN).max(1) * AeadKey::TAG_LEN;
        let mut out = Vec::with_capacity(header::MAX_LEN + data.len() + tags);
        encryptor.push(data, &mut out)?;
        encryptor.finish(&mut out)?;
        Ok(out)
    }

    /// Opens a whole envelope that `from` sealed to `to`.
    ///
    /// # Errors
    ///
    /// [`Error::Envelope`] if it has not the form of one, [`Error::Open`] if it is not exactly what the holder of
    /// `from` sealed to `to` under this associated data, [`Error::Random`] if the source fails.
    pub fn decrypt(
        &self,
        envelope: &[u8],
        to: &RsaKeyPair,
        from: &RsaPublicKey,
    ) -> Result<Vec<u8>, Error> {
        let mut decryptor = self.decryptor(to, from);
        let mut out = Vec::with_capacity(envelope.len());
        let opened = decryptor
            .push(envelope, &mut out)
            .and_then(|()| decryptor.finish(&mut out));
        match opened {
            Ok(()) => Ok(out),
            Err(error) => {
                // A beginning of the data, perhaps.
                out.zeroize();
                Err(error)
            }
        }
    }

    /// Starts an envelope whose data comes in pieces. Costs one private-key operation of `from`.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] or [`Error::Engine`] if either fails.
    pub fn encryptor(&self, to: &RsaPublicKey, from: &RsaKeyPair) -> Result<Encryptor, Error> {
        Encryptor::new(*self, to, from)
    }

    /// Opens an envelope that comes in pieces. Costs one private-key operation of `to`, after the sender's signature
    /// was checked.
    pub fn decryptor(&self, to: &'a RsaKeyPair, from: &'a RsaPublicKey) -> Decryptor<'a> {
        Decryptor::new(*self, to, from)
    }

    /// Seals all that `source` gives, into `target`, in constant memory. Gives the length of the data.
    ///
    /// [`EncryptWriter`] is the same as something to write to.
    ///
    /// # Errors
    ///
    /// [`StreamError`]; what was written then opens nowhere.
    pub fn encrypt_stream(
        &self,
        source: &mut dyn Read,
        target: &mut dyn Write,
        to: &RsaPublicKey,
        from: &RsaKeyPair,
    ) -> Result<u64, StreamError> {
        stream::encrypt(self.encryptor(to, from)?, source, target)
    }

    /// Opens the envelope that `source` gives, to its end, into `target`, in constant memory. Gives the length of the
    /// data.
    ///
    /// [`DecryptReader`] is the same as something to read from.
    ///
    /// # Errors
    ///
    /// [`StreamError`]; what was written then is a beginning of the data at best, and must not be used.
    pub fn decrypt_stream(
        &self,
        source: &mut dyn Read,
        target: &mut dyn Write,
        to: &'a RsaKeyPair,
        from: &'a RsaPublicKey,
    ) -> Result<u64, StreamError> {
        stream::decrypt(self.decryptor(to, from), source, target)
    }
}

impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("engine", &self.engine)
            .field("aad_len", &self.aad.len())
            .finish_non_exhaustive()
    }
}

/// Whom an envelope says that it is from and to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Parties {
    /// The key that signed it.
    pub sender: Fingerprint,
    /// The key that opens it.
    pub recipient: Fingerprint,
}

/// Whom an envelope says that it is from and to, to find the keys with. Nothing of it is proven before it was opened.
///
/// `start` is at least its first [`PEEK_LEN`] bytes.
///
/// # Errors
///
/// [`Error::Envelope`] if it is not the start of an envelope.
pub fn peek(start: &[u8]) -> Result<Parties, Error> {
    header::parties(start)?.ok_or(Error::Envelope {
        what: "ends within its header",
    })
}

/// Bytes of an envelope that [`peek`] needs.
pub const PEEK_LEN: usize = header::PARTIES_END;
/// Bytes of data in a chunk, but for the last: what is read before anything is given out.
pub const CHUNK_LEN: usize = 64 * 1024;

/// Associated data of the chunks: whether more follow.
const MORE: [u8; 1] = [0];
const LAST: [u8; 1] = [1];

#[cfg(test)]
mod tests;
