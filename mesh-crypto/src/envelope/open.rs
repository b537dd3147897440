//! Opening, chunk by chunk.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::CHUNK_LEN;
use super::Envelope;
use super::LAST;
use super::MORE;
use super::Parties;
use super::header;
use super::header::Header;
use super::header::Keys;
use crate::Error;
use crate::RsaKeyPair;
use crate::RsaPublicKey;
use crate::aead::AeadKey;
use crate::aead::OpeningKey;

/// Opens an envelope that comes in pieces; see [`Envelope::decryptor`].
///
/// It gives out a chunk when that chunk was authenticated, and holds one chunk of 64 KiB, whatever the length of the
/// envelope. That the envelope was not cut off is known only when [`finish`](Self::finish) has said so: keep what was
/// given out apart until then.
pub struct Decryptor<'a> {
    envelope: Envelope<'a>,
    to: &'a RsaKeyPair,
    from: &'a RsaPublicKey,
    state: State,
    /// The start of the header, or a chunk that may be the last.
    held: Vec<u8>,
}

enum State {
    Header,
    Chunks { key: OpeningKey, index: u32 },
    Failed,
}

impl<'a> Decryptor<'a> {
    pub(super) fn new(envelope: Envelope<'a>, to: &'a RsaKeyPair, from: &'a RsaPublicKey) -> Self {
        Self {
            envelope,
            to,
            from,
            state: State::Header,
            held: Vec::new(),
        }
    }

    /// Takes the next bytes of the envelope and appends to `out` the data that they complete, a chunk at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Envelope`] if it has not the form of an envelope, [`Error::Open`] if it is not what the sender sealed,
    /// [`Error::Random`] if the source fails. Nothing opens after that; what was appended before is authentic, but
    /// only the beginning.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let done = self.take(bytes, out);
        if done.is_err() {
            self.state = State::Failed;
        }
        done
    }

    /// Appends the last chunk to `out`: the envelope has ended, and this was all of it.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push); in particular [`Error::Open`] if the envelope was cut off.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match &self.state {
            State::Header => Err(Error::Envelope {
                what: "ends within its header",
            }),
            // Data that fills its chunks has no empty one after them: one envelope for one text.
            State::Chunks { index, .. } if *index > 0 && self.held.len() == AeadKey::TAG_LEN => {
                Err(Error::Open)
            }
            State::Chunks { key, index } => open(key, (*index, &LAST), &mut self.held, out),
            State::Failed => Err(Error::Open),
        }
    }

    fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if matches!(self.state, State::Header) {
            match self.take_header(bytes)? {
                Some(rest) => bytes = rest,
                None => return Ok(()),
            }
        }
        let State::Chunks { key, index } = &mut self.state else {
            return Err(Error::Open);
        };
        while !bytes.is_empty() {
            // Whether a full chunk is the last one shows only when more bytes come, or none.
            if self.held.len() == SEALED_LEN {
                open(key, (*index, &MORE), &mut self.held, out)?;
                *index = index.checked_add(1).ok_or(Error::Open)?;
                self.held.clear();
            }
            let room = SEALED_LEN.saturating_sub(self.held.len());
            let (taken, rest) = bytes.split_at(room.min(bytes.len()));
            self.held.extend_from_slice(taken);
            bytes = rest;
        }
        Ok(())
    }

    /// Takes what belongs to the header, and gives the rest when it is complete and good.
    fn take_header<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Error> {
        let before = self.held.len();
        let room = header::MAX_LEN.saturating_sub(before);
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.held.extend_from_slice(taken);
        let Some(header) = Header::parse(&self.held)? else {
            return Ok(None);
        };
        let key = self.authenticate(&header)?;
        // It was not complete before, so it ends within these bytes.
        let used = header.len.saturating_sub(before);
        let rest = bytes.get(used..).unwrap_or_default();
        self.state = State::Chunks { key, index: 0 };
        self.held = Vec::with_capacity(SEALED_LEN);
        Ok(Some(rest))
    }

    /// The key of the chunks, if the header is the sender's and meant for us. What costs least comes first; the private
    /// key is used only for what the sender has signed.
    fn authenticate(&self, header: &Header<'_>) -> Result<OpeningKey, Error> {
        let Envelope {
            engine,
            random,
            aad,
        } = self.envelope;
        let parties = Parties {
            sender: self.from.fingerprint(),
            recipient: self.to.public().fingerprint(),
        };
        if header.parties != parties
            || header.wrapped.len() != self.to.public().bits().modulus_len()
        {
            return Err(Error::Open);
        }
        self.from
            .verify_pss(
                &header::to_sign(engine, aad, header.signed),
                header.signature,
            )
            .or(Err(Error::Open))?;
        let secret = self.to.decrypt_oaep_or_random(
            header.wrapped,
            header::SECRET,
            header::SECRET_LEN,
            random,
        )?;
        let keys = Keys::derive(engine, &secret, aad, header.derived_from)?;
        if bool::from(keys.commitment.as_slice().ct_eq(header.commitment)) {
            Ok(OpeningKey::new(keys.key, keys.iv))
        } else {
            Err(Error::Open)
        }
    }
}

impl fmt::Debug for Decryptor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor")
            .field("envelope", &self.envelope)
            .field("to", self.to)
            .field("from", self.from)
            .finish_non_exhaustive()
    }
}

/// Opens the chunk in `held`, appends it to `out` and wipes it.
fn open(
    key: &OpeningKey,
    (index, aad): (u32, &[u8]),
    held: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let len = held
        .len()
        .checked_sub(AeadKey::TAG_LEN)
        .ok_or(Error::Open)?;
    let (text, tag) = held.split_at_mut(len);
    let opened = key.open((0, index), aad, text, tag);
    if opened.is_ok() {
        out.extend_from_slice(text);
    }
    text.zeroize();
    opened
}

/// Bytes of a full chunk and its tag.
const SEALED_LEN: usize = CHUNK_LEN + AeadKey::TAG_LEN;
