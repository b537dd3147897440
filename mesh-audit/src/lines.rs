//! Reads a log line by line in constant memory.

use std::io;

use crate::record::MAX_LINE;

/// A piece of the file.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    /// All its bytes, with the LF.
    pub(crate) bytes: &'a [u8],
    /// Where it starts in the file.
    pub(crate) offset: u64,
}

impl<'a> Piece<'a> {
    /// The line without its LF; `None` for what has none: an unfinished line at the end, or a part of one
    /// that is longer than any record.
    pub(crate) fn line(&self) -> Option<&'a [u8]> {
        self.bytes.strip_suffix(b"\n")
    }
}

/// Cuts what a reader gives into pieces of at most a line.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes from `start` that hold no LF.
    searched: usize,
    offset: u64,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            searched: 0,
            offset: 0,
        }
    }

    /// The next piece, or `None` at the end of the file.
    pub(crate) fn next(
        &mut self,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<Piece<'_>>> {
        loop {
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            let newline = unread
                .iter()
                .skip(self.searched)
                .position(|&byte| byte == b'\n');
            if let Some(at) = newline {
                let length = self.searched + at + 1;
                return Ok(Some(self.take(length)));
            }
            self.searched = unread.len();
            if self.searched > MAX_LINE {
                return Ok(Some(self.take(self.searched)));
            }
            if self.buffer.len() - self.end < READ {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            let free = self.buffer.get_mut(self.end..).unwrap_or_default();
            match read(free) {
                Ok(0) if self.searched == 0 => return Ok(None),
                Ok(0) => return Ok(Some(self.take(self.searched))),
                Ok(read) => self.end += read.min(self.buffer.len() - self.end),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, length: usize) -> Piece<'_> {
        let (from, offset) = (self.start, self.offset);
        self.start += length;
        self.offset += length as u64;
        self.searched = 0;
        Piece {
            bytes: self.buffer.get(from..self.start).unwrap_or_default(),
            offset,
        }
    }
}

/// Least room for a read.
const READ: usize = 32 * 1024;
/// An unfinished line (at most `MAX_LINE` bytes) and two reads always fit.
const BUFFER: usize = MAX_LINE + 4 * READ;
