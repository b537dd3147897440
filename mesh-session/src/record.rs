//! Records: a header in clear, the ciphertext, GCM's tag, and the MAC over all of it.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;
use std::ops::BitOr;

use mesh_crypto::MacKey;
use mesh_crypto::aead::AeadKey;

use crate::Error;
use crate::Role;
use crate::wire::VERSION;

/// Which session a record belongs to: 16 bytes that both ends derived, sent in clear.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// An id from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The session that a record says it belongs to, to find it in a table. Nothing of the record is authentic yet.
///
/// # Errors
///
/// [`Error::Malformed`] if it is too short for a record, [`Error::Version`] if it is of another version.
pub fn session_id_of(record: &[u8]) -> Result<SessionId, Error> {
    let malformed = Error::Malformed { what: "record" };
    let (header, rest) = record.split_first_chunk::<HEADER_LEN>().ok_or(malformed)?;
    if rest.len() < TRAILER_LEN {
        return Err(Error::Malformed { what: "record" });
    }
    let [version, ..] = *header;
    if version != VERSION {
        return Err(Error::Version { version });
    }
    Ok(Header::read(header).session)
}

/// What a record says of itself to the application; authenticated, sent in clear.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Flags(u8);

impl Flags {
    /// A record in the middle of a stream.
    pub const NONE: Self = Self(0);
    /// The last record of its direction: the stream is complete.
    pub const END: Self = Self(1);
    /// The plaintext is the head of a request or response.
    pub const HEAD: Self = Self(2);
    /// The plaintext is trailers.
    pub const TRAILERS: Self = Self(4);

    /// Whether all of `other` is in this.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The byte on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    fn from_bits(bits: u8) -> Option<Self> {
        let known = Self::END | Self::HEAD | Self::TRAILERS;
        (bits & !known.0 == 0).then_some(Self(bits))
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The 32 bytes before the ciphertext.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) epoch: u8,
    pub(crate) flags: u8,
    pub(crate) direction: u8,
    pub(crate) session: SessionId,
    pub(crate) exchange: u64,
    pub(crate) index: u32,
}

impl Header {
    /// The header of a record whose length is one that a record can have.
    pub(crate) fn of(record: &[u8]) -> Result<Self, Error> {
        let longest = HEADER_LEN
            .saturating_add(MAX_PLAINTEXT)
            .saturating_add(TRAILER_LEN);
        let (header, rest) = record.split_first_chunk().ok_or(Error::Open)?;
        if record.len() > longest || rest.len() < TRAILER_LEN {
            return Err(Error::Open);
        }
        Ok(Self::read(header))
    }

    #[rustfmt::skip]
    pub(crate) fn write(&self) -> [u8; HEADER_LEN] {
        let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15] = self.session.0;
        let [e0, e1, e2, e3, e4, e5, e6, e7] = self.exchange.to_be_bytes();
        let [i0, i1, i2, i3] = self.index.to_be_bytes();
        [
            self.version, self.epoch, self.flags, self.direction,
            s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15,
            e0, e1, e2, e3, e4, e5, e6, e7,
            i0, i1, i2, i3,
        ]
    }

    #[rustfmt::skip]
    pub(crate) fn read(bytes: &[u8; HEADER_LEN]) -> Self {
        let [
            version, epoch, flags, direction,
            s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15,
            e0, e1, e2, e3, e4, e5, e6, e7,
            i0, i1, i2, i3,
        ] = *bytes;
        Self {
            version,
            epoch,
            flags,
            direction,
            session: SessionId([s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15]),
            exchange: u64::from_be_bytes([e0, e1, e2, e3, e4, e5, e6, e7]),
            index: u32::from_be_bytes([i0, i1, i2, i3]),
        }
    }

    pub(crate) fn flags(&self) -> Result<Flags, Error> {
        Flags::from_bits(self.flags).ok_or(Error::Open)
    }
}

/// The direction byte of records that a side sends.
pub(crate) const fn direction_from(role: Role) -> u8 {
    match role {
        Role::Initiator => 1,
        Role::Responder => 2,
    }
}

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 4 + 16 + 8 + 4;
/// Bytes of tag and MAC.
pub(crate) const TRAILER_LEN: usize = AeadKey::TAG_LEN + MacKey::TAG_LEN;
/// 16 MiB: four times gRPC's default limit of a message, far below what GCM could take.
pub(crate) const MAX_PLAINTEXT: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_reads_back(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(Header::read(&bytes).write(), bytes);
        }

        #[test]
        fn any_bytes_have_an_id_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(id) = session_id_of(&bytes) {
                prop_assert_eq!(Some(id.as_bytes().as_slice()), bytes.get(4..20));
            }
        }
    }
}
