//! Reading and writing the fields of handshake messages: big endian, byte strings after a 16-bit length.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::Error;

/// The version that every message and record begins with.
pub(crate) const VERSION: u8 = 1;
pub(crate) const KIND_INIT: u8 = 1;
pub(crate) const KIND_REPLY: u8 = 2;
pub(crate) const KIND_OFFER: u8 = 3;
pub(crate) const KIND_RESUME: u8 = 4;
pub(crate) const KIND_RESUMED: u8 = 5;

/// A SPIFFE id has at most 2,048 bytes (SPIFFE-ID section 2.3).
pub(crate) const MAX_NAME: usize = 2_048;
/// The `SubjectPublicKeyInfo` of RSA-4096 has 550 bytes.
pub(crate) const MAX_SPKI: usize = 1_024;
/// A chain of four certificates with RSA-4096 signatures has about 8 KiB.
pub(crate) const MAX_ATTESTATION: usize = 32_768;
/// What common HTTP servers take as one header.
pub(crate) const MAX_TOKEN: usize = 8_192;
/// The signature of RSA-4096 has 512 bytes, its ciphertext too.
pub(crate) const MAX_RSA: usize = 512;

pub(crate) fn check_len(what: &'static str, got: usize, limit: usize) -> Result<(), Error> {
    if got > limit {
        Err(Error::TooLong { what, got, limit })
    } else {
        Ok(())
    }
}

/// Appends a length and the bytes.
pub(crate) fn put(out: &mut Vec<u8>, what: &'static str, bytes: &[u8]) -> Result<(), Error> {
    let limit = usize::from(u16::MAX);
    let len = u16::try_from(bytes.len()).or(Err(Error::TooLong {
        what,
        got: bytes.len(),
        limit,
    }))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// What is left of a message to read.
pub(crate) struct Reader<'a> {
    message: &'static str,
    all: &'a [u8],
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of fields only.
    pub(crate) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            message,
            all: bytes,
            left: bytes,
        }
    }

    /// A reader of a whole message, past its version and kind.
    pub(crate) fn message(message: &'static str, kind: u8, bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Self::new(message, bytes);
        let [version] = reader.array()?;
        if version != VERSION {
            return Err(Error::Version { version });
        }
        let [got] = reader.array()?;
        if got == kind {
            Ok(reader)
        } else {
            Err(reader.malformed())
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (field, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or_else(|| self.malformed())?;
        self.left = left;
        Ok(*field)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (field, left) = self
            .left
            .split_at_checked(len)
            .ok_or_else(|| self.malformed())?;
        self.left = left;
        Ok(field)
    }

    pub(crate) fn field(&mut self, max: usize) -> Result<&'a [u8], Error> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        if len > max {
            Err(self.malformed())
        } else {
            self.take(len)
        }
    }

    pub(crate) fn name(&mut self) -> Result<&'a str, Error> {
        let bytes = self.field(MAX_NAME)?;
        match std::str::from_utf8(bytes) {
            Ok(name) if !name.is_empty() => Ok(name),
            _ => Err(self.malformed()),
        }
    }

    /// What was read so far.
    pub(crate) fn so_far(&self) -> &'a [u8] {
        self.all
            .get(..self.all.len().saturating_sub(self.left.len()))
            .unwrap_or_default()
    }

    pub(crate) fn end(self) -> Result<(), Error> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    fn malformed(&self) -> Error {
        Error::Malformed { what: self.message }
    }
}
