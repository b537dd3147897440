//! Messages of a session over any stream of bytes: each after its length, read and written in batches.
//!
//! A frame is a length (32 bits, big endian) and that many bytes: a handshake message or a record. Nothing here is
//! authentic: a meddler who changes a length makes a message that does not open, or one that never comes.
//!
//! One turn of a connection is: read once into [`FrameReader::buffer`], take every frame that is there, seal the
//! answers into a [`FrameWriter`], write its buffer once. Buffers are used again, so that a turn allocates nothing once
//! they have grown to what the connection needs, and frames taken were dropped. `examples/tcp.rs` is that over TCP.
//!
//! ```rust
//! # use mesh_session::framing::{FrameReader, FrameWriter};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut writer = FrameWriter::new();
//! writer.put(b"hello")?;
//! writer.put(b"world")?;
//!
//! let mut reader = FrameReader::new(1024);
//! reader.buffer().extend_from_slice(writer.buffer());
//! assert_eq!(reader.next_frame()?.as_deref(), Some(&b"hello"[..]));
//! assert_eq!(reader.next_frame()?.as_deref(), Some(&b"world"[..]));
//! assert_eq!(reader.next_frame()?, None);
//! # Ok(())
//! # }
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Buf as _;
use bytes::BufMut as _;
use bytes::BytesMut;

use crate::Error;
use crate::Flags;
use crate::Sealer;
use crate::wire::check_len;

/// The largest frame there is: a record with 16 MiB of plaintext.
pub const MAX_FRAME: usize = Sealer::HEADER_ROOM + Sealer::MAX_PLAINTEXT + Sealer::TRAILER_ROOM;

/// Why a stream of frames cannot go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The peer announced a frame that is larger than this side takes.
    #[error("frame of {len} bytes is larger than the limit of {max}; close the connection")]
    TooLarge {
        /// The announced length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Truncated,
}

/// Takes frames out of bytes that arrive cut anywhere.
///
/// It holds what arrived and was not taken yet. Its memory follows what the peer really sent, not what it announced: up
/// to four times as much, and 64 KiB at the least.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    max: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `max_frame` bytes, at most [`MAX_FRAME`].
    pub fn new(max_frame: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            max: max_frame.min(MAX_FRAME),
        }
    }

    /// Where received bytes are to be appended, with room for some; read into it what there is.
    ///
    /// Take all frames between two calls: only then the memory of those before is used again.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let len = self.buffer.len();
        let spare = self.buffer.capacity().saturating_sub(len);
        // As much as is still to come of a long frame, but no more than as much again as was really sent.
        let missing = self.announced().saturating_add(PREFIX).saturating_sub(len);
        let wanted = missing.clamp(MIN_ROOM, len.max(MIN_ROOM));
        if spare < wanted {
            self.buffer.reserve(wanted.max(ROOM.saturating_sub(len)));
        }
        &mut self.buffer
    }

    /// The next frame, if all of it has arrived.
    ///
    /// # Errors
    ///
    /// [`FramingError::TooLarge`], again at each call: nothing behind such a frame can be found.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, FramingError> {
        let len = self.announced();
        if len > self.max {
            return Err(FramingError::TooLarge { len, max: self.max });
        }
        if self.buffer.len() < len.saturating_add(PREFIX) {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(len)))
    }

    /// To be called when no more bytes come: says whether they ended with a whole frame.
    ///
    /// That says nothing about who ended the stream: an exchange is complete when [`Opener::finish`] says so.
    ///
    /// # Errors
    ///
    /// [`FramingError::Truncated`].
    ///
    /// [`Opener::finish`]: crate::Opener::finish
    pub fn finish(&self) -> Result<(), FramingError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(FramingError::Truncated)
        }
    }

    /// The length of the frame that has begun to arrive; 0 if that is not known yet.
    fn announced(&self) -> usize {
        self.buffer.first_chunk().map_or(0, |len| {
            usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX)
        })
    }
}

/// Collects frames to be written at once.
///
/// It has no bound of its own: write its buffer whenever what was read is answered, and it holds no more than that.
#[derive(Debug, Default)]
pub struct FrameWriter {
    buffer: BytesMut,
}

impl FrameWriter {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame, such as a message of a handshake.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] if it has more than [`MAX_FRAME`] bytes.
    pub fn put(&mut self, message: &[u8]) -> Result<(), Error> {
        check_len("the frame", message.len(), MAX_FRAME)?;
        self.begin(message.len());
        self.buffer.extend_from_slice(message);
        Ok(())
    }

    /// Appends a record with this plaintext, sealed where it will be sent from.
    ///
    /// # Errors
    ///
    /// Those of [`Sealer::seal`]. The frames appended before stay as they are.
    pub fn seal(
        &mut self,
        sealer: &mut Sealer,
        flags: Flags,
        plaintext: &[u8],
    ) -> Result<(), Error> {
        check_len("the plaintext", plaintext.len(), Sealer::MAX_PLAINTEXT)?;
        let before = self.buffer.len();
        let len = RECORD_OVERHEAD.saturating_add(plaintext.len());
        self.begin(len);
        // The record is split off, sealed in place and joined again, both for free.
        let mut record = self.buffer.split_off(self.buffer.len());
        record.put_bytes(0, Sealer::HEADER_ROOM);
        record.extend_from_slice(plaintext);
        let done = sealer.seal(flags, &mut record);
        self.buffer.unsplit(record);
        if done.is_err() {
            self.buffer.truncate(before);
        }
        done
    }

    /// What is to be written. Take off it what was written, such as with `AsyncWriteExt::write_all_buf`, or clear it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    fn begin(&mut self, len: usize) {
        self.buffer.reserve(PREFIX.saturating_add(len));
        // No frame is longer than `MAX_FRAME`, which has 25 bits.
        self.buffer.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    }
}

/// Bytes of a frame's length.
const PREFIX: usize = 4;
const RECORD_OVERHEAD: usize = Sealer::HEADER_ROOM + Sealer::TRAILER_ROOM;
/// Room for a read at the least: as much as a TLS record holds.
const MIN_ROOM: usize = 16 * 1024;
/// Room made when there is too little: several reads in a row before anything is moved, and all of it stays in a cache.
const ROOM: usize = 64 * 1024;

#[cfg(test)]
mod tests;
