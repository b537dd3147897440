//! Sealing, chunk by chunk.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;
use zeroize::Zeroizing;

use super::CHUNK_LEN;
use super::Envelope;
use super::LAST;
use super::MORE;
use super::Parties;
use super::header;
use super::header::Keys;
use crate::Error;
use crate::RsaKeyPair;
use crate::RsaPublicKey;
use crate::Secret;
use crate::aead::SealingKey;
use crate::aead::SealingStream;

/// Seals an envelope whose data comes in pieces; see [`Envelope::encryptor`].
///
/// It holds one chunk of 64 KiB, whatever the length of the data. Without [`finish`](Self::finish) the envelope is a
/// cut one, which opens nowhere.
pub struct Encryptor {
    stream: SealingStream,
    /// The header, until it was given out.
    header: Vec<u8>,
    /// Data of a chunk that may be the last.
    held: Zeroizing<Vec<u8>>,
}

impl Encryptor {
    pub(super) fn new(
        envelope: Envelope<'_>,
        to: &RsaPublicKey,
        from: &RsaKeyPair,
    ) -> Result<Self, Error> {
        let Envelope {
            engine,
            random,
            aad,
        } = envelope;
        let secret = Secret::random(header::SECRET_LEN, random)?;
        let wrapped = to.encrypt_oaep(secret.expose(), header::SECRET, random)?;
        let parties = Parties {
            sender: from.public().fingerprint(),
            recipient: to.fingerprint(),
        };
        let mut header = header::begin(parties, &wrapped)?;
        let keys = Keys::derive(engine, &secret, aad, &header)?;
        header.extend_from_slice(&keys.commitment);
        let signature = from.sign_pss(&header::to_sign(engine, aad, &header), random)?;
        header::put(&mut header, &signature)?;
        let key = Arc::new(SealingKey::counting(keys.key, keys.iv));
        Ok(Self {
            stream: key.next_stream()?,
            header,
            held: Zeroizing::new(Vec::with_capacity(CHUNK_LEN)),
        })
    }

    /// Takes the next data and appends to `out` what of the envelope is ready: for each byte of data about one, in
    /// chunks, and at first the header.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] above 256 GiB, [`Error::Engine`] if the engine fails; the envelope is lost then.
    pub fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        out.append(&mut self.header);
        while !data.is_empty() {
            // Whether a full chunk is the last one shows only when more data comes, or none.
            if self.held.len() == CHUNK_LEN {
                seal(&mut self.stream, &MORE, &self.held, out)?;
                self.held.clear();
            }
            match data.split_at_checked(CHUNK_LEN) {
                Some((chunk, rest)) if self.held.is_empty() && !rest.is_empty() => {
                    seal(&mut self.stream, &MORE, chunk, out)?;
                    data = rest;
                }
                _ => {
                    let room = CHUNK_LEN - self.held.len();
                    let (taken, rest) = data.split_at(room.min(data.len()));
                    self.held.extend_from_slice(taken);
                    data = rest;
                }
            }
        }
        Ok(())
    }

    /// Appends the rest of the envelope to `out`.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.append(&mut self.header);
        seal(&mut self.stream, &LAST, &self.held, out)
    }
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

fn seal(
    stream: &mut SealingStream,
    aad: &[u8],
    chunk: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = out.len();
    out.extend_from_slice(chunk);
    let sealed = out.get_mut(start..).unwrap_or_default();
    match stream.seal(aad, sealed) {
        Ok(tag) => {
            out.extend_from_slice(&tag);
            Ok(())
        }
        Err(error) => {
            // It may still be the plain text.
            sealed.zeroize();
            out.truncate(start);
            Err(error)
        }
    }
}
