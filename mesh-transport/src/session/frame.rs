//! gRPC's length-prefixed messages with one `bytes` field, written and read in place.
//!
//! # Sources
//!
//! gRPC over HTTP/2, "Length-Prefixed-Message"; Protocol Buffers encoding, wire type 2 and base-128 varints.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Range;

use bytes::Buf;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;

/// A peer's message that is not one of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It is larger than any record may be.
    #[error("message of {len} bytes is larger than the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// The announced length.
        len: usize,
    },
    /// It is compressed, or not of the form that `mesh.proto` gives.
    #[error("message is not of the form that mesh.proto gives")]
    Malformed,
    /// The stream ended in the middle of a message.
    #[error("the stream ended in the middle of a message")]
    Truncated,
}

/// How many bytes go before a field of `len` bytes.
pub(crate) fn prefix_len(len: usize) -> usize {
    GRPC_PREFIX
        .saturating_add(1)
        .saturating_add(varint_len(len))
}

/// Writes what goes before a field of `len` bytes.
pub(crate) fn put_prefix(out: &mut BytesMut, len: usize) {
    let message = len.saturating_add(varint_len(len)).saturating_add(1);
    out.put_u8(0);
    out.put_u32(u32::try_from(message).unwrap_or(u32::MAX));
    out.put_u8(FIELD_1_BYTES);
    let mut rest = len;
    while rest >= 0x80 {
        out.put_u8(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.put_u8(u8::try_from(rest).unwrap_or(0));
}

/// A whole message.
pub(crate) fn message(field: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(prefix_len(field.len()).saturating_add(field.len()));
    put_prefix(&mut out, field.len());
    out.put_slice(field);
    out.freeze()
}

/// Takes messages out of a stream of chunks that are cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes from the stream.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.buffer.is_empty() {
            // Without a copy where nobody else holds the chunk.
            self.buffer = chunk
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&*shared));
        } else {
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// The field of the next whole message, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let Some(field) = self.field()? else {
            return Ok(None);
        };
        if self.buffer.len() < field.end {
            return Ok(None);
        }
        self.buffer.advance(field.start);
        Ok(Some(self.buffer.split_to(field.len())))
    }

    /// The first `len` bytes of the next message's field, or all of a shorter one, once they are there.
    pub(crate) fn front(&self, len: usize) -> Result<Option<&[u8]>, FrameError> {
        let Some(field) = self.field()? else {
            return Ok(None);
        };
        let end = field.end.min(field.start.saturating_add(len));
        Ok(self.buffer.get(field.start..end))
    }

    /// Gives up the message that has begun, and says how many bytes of it are still to come.
    pub(crate) fn give_up(&mut self) -> usize {
        let end = self
            .field()
            .map_or(0, |field| field.map_or(0, |field| field.end));
        let missing = end.saturating_sub(self.buffer.len());
        self.buffer.clear();
        missing
    }

    /// Where the field of the next message lies in the buffer, as far as it is there, once its length is.
    fn field(&self) -> Result<Option<Range<usize>>, FrameError> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<GRPC_PREFIX>() else {
            return Ok(None);
        };
        let [compressed, a, b, c, d] = *prefix;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if len > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLarge { len });
        }
        if compressed != 0 {
            return Err(FrameError::Malformed);
        }
        if len == 0 {
            return Ok(Some(GRPC_PREFIX..GRPC_PREFIX));
        }
        let mut message = rest.get(..len).unwrap_or(rest).iter();
        let mut start = GRPC_PREFIX;
        let mut next = || {
            start = start.saturating_add(1);
            message.next().copied()
        };
        // What is not there yet may still come, unless the message ends before.
        let end = GRPC_PREFIX.saturating_add(len);
        let cut_short = if rest.len() < len {
            Ok(None)
        } else {
            Err(FrameError::Malformed)
        };
        match next() {
            Some(FIELD_1_BYTES) => {}
            Some(_) => return Err(FrameError::Malformed),
            None => return cut_short,
        }
        let mut field = 0usize;
        for shift in [0, 7, 14, 21] {
            let Some(byte) = next() else {
                return cut_short;
            };
            field |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if start.saturating_add(field) == end {
                    Ok(Some(start..end))
                } else {
                    Err(FrameError::Malformed)
                };
            }
        }
        Err(FrameError::Malformed)
    }

    /// Whether nothing is left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

const GRPC_PREFIX: usize = 5;
/// Field number 1, wire type 2.
const FIELD_1_BYTES: u8 = 0x0a;
/// A record of 64 KiB of data, a header block of 64 KiB and what the session adds, rounded up.
pub(crate) const MAX_MESSAGE_BYTES: usize = 192 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_messages_out_of_a_stream_cut_anywhere() {
        let fields: Vec<Vec<u8>> = [0, 1, 127, 128, 16_383, 16_384, 70_000]
            .map(|len| vec![7; len])
            .into();
        let stream: Vec<u8> = fields.iter().flat_map(|field| message(field)).collect();
        for cut in [1, 2, 5, 6, 7, 1000, stream.len()] {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for chunk in stream.chunks(cut) {
                decoder.push(Bytes::copy_from_slice(chunk));
                while let Some(field) = decoder.next().unwrap() {
                    found.push(field.to_vec());
                }
            }
            assert!(decoder.is_empty());
            assert_eq!(found, fields, "cut every {cut}");
        }
    }

    #[test]
    fn refuses_what_is_too_large_compressed_or_of_another_form() {
        for (bytes, error) in [
            (
                &[0, 0xff, 0, 0, 0][..],
                FrameError::TooLarge { len: 0xff00_0000 },
            ),
            (&[1, 0, 0, 0, 1, 0], FrameError::Malformed),
            (&[0, 0, 0, 0, 1, 0x0a], FrameError::Malformed),
            (&[0, 0, 0, 0, 2, 0x0a, 1], FrameError::Malformed),
            (&[0, 0, 0, 0, 2, 0x12, 0], FrameError::Malformed),
            (&[0, 0, 0, 0, 3, 0x0a, 0, 9], FrameError::Malformed),
            (
                &[0, 0, 0, 0, 6, 0x0a, 0x80, 0x80, 0x80, 0x80, 1],
                FrameError::Malformed,
            ),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(Bytes::copy_from_slice(bytes));
            let found = loop {
                match decoder.next() {
                    Ok(None) => decoder.push(Bytes::from_static(&[0])),
                    other => break other,
                }
            };
            assert_eq!(
                found.map(|field| field.map(|field| field.len())),
                Err(error),
                "{bytes:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn a_message_comes_back_as_it_went_in(field in proptest::collection::vec(0u8.., 0..600), cut in 1usize..700) {
            let mut decoder = Decoder::default();
            let mut found = None;
            for chunk in message(&field).chunks(cut) {
                assert!(found.is_none());
                decoder.push(Bytes::copy_from_slice(chunk));
                found = decoder.next().unwrap();
            }
            assert_eq!(found.unwrap(), field);
            assert!(decoder.is_empty());
        }

        #[test]
        fn any_bytes_give_messages_or_an_error(chunks in proptest::collection::vec(proptest::collection::vec(0u8..12, 0..40), 0..8)) {
            let mut decoder = Decoder::default();
            for chunk in chunks {
                decoder.push(Bytes::from(chunk));
                while let Ok(Some(_)) = decoder.next() {}
            }
        }
    }
}
