//! Finds the end of the good records when a log is opened, and tells a crash from damage.
//!
//! A crash leaves, behind the records that were synced, bytes of lines that were not: cut anywhere, zeroed or missing in
//! pieces of a sector, in any order. So the tail may be cut off if its first line is no record at all and
//! no record after it claims that the place had been synced (`synced`). A line that is a record
//! but has a wrong hash, number or link is never the work of a crash, and is refused.

use std::io;

use sha2::{Digest as _, Sha256};

use crate::chain::{ChainKey, Head, RecordHash};
use crate::fs::File;
use crate::lines::{Lines, Piece};
use crate::record::parse;
use crate::verify::{Checker, Damage};

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Found {
    /// The last good record.
    pub(crate) head: Head,
    /// Bytes of the good records.
    pub(crate) length: u64,
    /// The bytes after them: how many, and their SHA-256.
    pub(crate) tail: Option<(u64, RecordHash)>,
}

/// Why a file can't be written on.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(io::Error),
    Damaged {
        line: u64,
        offset: u64,
        damage: Damage,
    },
}

/// Reads the whole file.
pub(crate) fn scan(file: &mut dyn File, key: Option<&ChainKey>) -> Result<Found, ScanError> {
    let mut checker = Checker::new(key);
    let mut lines = Lines::new();
    let mut read = |buffer: &mut [u8]| file.read(buffer);
    let mut length = 0;
    let mut line = 0;
    let mut tail: Option<Tail> = None;
    while let Some(piece) = lines.next(&mut read).map_err(ScanError::Io)? {
        if let Some(tail) = &mut tail {
            tail.add(&piece, checker.head().seq)?;
            continue;
        }
        line += 1;
        let damage = match piece.line().map(|text| checker.check(text)) {
            Some(Ok(_)) => {
                length += piece.bytes.len() as u64;
                continue;
            }
            Some(Err(Damage::NotRecord)) => Damage::NotRecord,
            None => Damage::TornTail,
            Some(Err(damage)) => {
                return Err(ScanError::Damaged {
                    line,
                    offset: piece.offset,
                    damage,
                });
            }
        };
        tail = Some(Tail::new(line, damage, &piece));
    }
    Ok(Found {
        head: checker.head(),
        length,
        tail: tail.map(Tail::finish),
    })
}

/// The bytes behind the last good record.
struct Tail {
    line: u64,
    offset: u64,
    damage: Damage,
    bytes: u64,
    hash: Sha256,
}

impl Tail {
    fn new(line: u64, damage: Damage, piece: &Piece<'_>) -> Self {
        Self {
            line,
            offset: piece.offset,
            damage,
            bytes: piece.bytes.len() as u64,
            hash: Sha256::new_with_prefix(piece.bytes),
        }
    }

    /// Takes more bytes, unless they are a record that proves that those before had been synced.
    fn add(&mut self, piece: &Piece<'_>, last_good: u64) -> Result<(), ScanError> {
        let is_proof = piece
            .line()
            .and_then(parse)
            .is_some_and(|record| record.synced > last_good);
        if is_proof {
            return Err(ScanError::Damaged {
                line: self.line,
                offset: self.offset,
                damage: self.damage,
            });
        }
        self.bytes += piece.bytes.len() as u64;
        self.hash.update(piece.bytes);
        Ok(())
    }

    fn finish(self) -> (u64, RecordHash) {
        (
            self.bytes,
            RecordHash::from_bytes(self.hash.finalize().into()),
        )
    }
}
