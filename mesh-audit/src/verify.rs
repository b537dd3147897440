//! Checks a log: every hash, every link, every number, and the head if one is known.

use std::io;

use crate::chain::{ChainKey, Head, RecordHash, Sealer};
use crate::lines::Lines;
use crate::record::{Notice, Parsed, parse};

/// What to hold a log against.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// The chain key of a keyed log. Default none. With a key, a log that is not keyed is refused.
    pub key: Option<ChainKey>,
    /// The log must end with exactly this record. Default none.
    pub expect_head: Option<Head>,
    /// The log must contain this record; it may have grown since. Default none.
    pub expect_at_least: Option<Head>,
}

impl VerifyOptions {
    /// Requires this chain key.
    #[must_use]
    pub fn with_key(mut self, key: ChainKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Requires this last record.
    #[must_use]
    pub fn with_expect_head(mut self, head: Head) -> Self {
        self.expect_head = Some(head);
        self
    }

    /// Requires this record somewhere.
    #[must_use]
    pub fn with_expect_at_least(mut self, head: Head) -> Self {
        self.expect_at_least = Some(head);
        self
    }
}

/// A log that verifies.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Records, with the notices that the log itself wrote.
    pub records: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Time of the first record, as written (RFC 3339, UTC).
    pub first_time: Option<String>,
    /// Time of the last record.
    pub last_time: Option<String>,
    /// The last record: keep it elsewhere to detect a later truncation. [`Head::EMPTY`] for an empty file.
    pub head: Head,
    /// Times that a torn tail was cut when the log was opened after a crash.
    pub repairs: u64,
    /// Times that the log recovered from a failed write.
    pub recoveries: u64,
    /// Whether the chain is keyed.
    pub is_keyed: bool,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The last line has no end: a crash while it was written, or a cut inside it.
    #[error("the last line is torn; opening the log for writing repairs it")]
    TornTail,
    /// The line is no JSON, or not of the form of a record.
    #[error("the line is not a JSON record of this format")]
    NotRecord,
    /// The line was changed after it was sealed, or sealed by someone without the key.
    #[error("the hash does not fit the line: it was changed, or sealed with another key")]
    BadHash,
    /// Records were taken out, or lines reordered.
    #[error("records {expected} to {} are missing here: deleted or moved", found - 1)]
    Missing {
        /// The number that had to come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// A number that was there already: a line was inserted, repeated or moved.
    #[error("record {found} stands where {expected} belongs: inserted, repeated or moved")]
    WrongSequence {
        /// The number that had to come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The record follows another one than the one before it: what is before was replaced.
    #[error("the record does not follow the one before it: one of them was replaced")]
    BrokenLink,
    /// The first record does not say that a log begins.
    #[error("the log does not begin with a log_created notice")]
    NoBeginning,
    /// The log is keyed and no key was given.
    #[error("the log is keyed; give its chain key")]
    KeyNeeded,
    /// The log is keyed with another key.
    #[error("the log is keyed with another chain key")]
    WrongKey,
    /// A key was given for a log that is not keyed.
    #[error(
        "the log is not keyed though a key is expected: it was replaced, or the key is not for it"
    )]
    NotKeyed,
}

/// Why a log does not verify.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A line is damaged.
    #[error("the audit log is damaged at line {line}, byte {offset}")]
    Damaged {
        /// The line, from 1.
        line: u64,
        /// Where it starts, in bytes.
        offset: u64,
        /// What is wrong.
        source: Damage,
    },
    /// The log ends before the expected record: it was truncated or rolled back to an old copy.
    #[error("the audit log ends at record {}, before the expected record {}: it was truncated or rolled back", found.seq, expected.seq)]
    Truncated {
        /// The record that had to be there.
        expected: Head,
        /// The last one that is.
        found: Head,
    },
    /// The expected record has another hash: the log was rewritten.
    #[error("record {} of the audit log has the hash {found}, not the expected {}: the log was rewritten", expected.seq, expected.hash)]
    Rewritten {
        /// The record that had to be there.
        expected: Head,
        /// The hash found in its place.
        found: RecordHash,
    },
    /// The log goes on after the head that had to be its last record.
    #[error("the audit log goes on to record {} after the expected head {}", found.seq, expected.seq)]
    Longer {
        /// The record that had to be the last.
        expected: Head,
        /// The last one.
        found: Head,
    },
    /// The log could not be read.
    #[error("could not read the audit log")]
    Io(#[source] io::Error),
}

/// Checks a whole log in constant memory (about 160 KiB).
///
/// Without an expected head this proves that the records follow each other unchanged from the first to the last, not
/// that nothing was cut from the end; and without a key, not that nobody wrote the whole anew.
///
/// # Errors
///
/// The first thing that is wrong, with its line and byte.
pub fn verify<R: io::Read>(mut reader: R, options: &VerifyOptions) -> Result<Report, VerifyError> {
    let mut checker = Checker::new(options.key.as_ref());
    let expected = [options.expect_head, options.expect_at_least];
    let mut report = Report {
        records: 0,
        bytes: 0,
        first_time: None,
        last_time: None,
        head: Head::EMPTY,
        repairs: 0,
        recoveries: 0,
        is_keyed: options.key.is_some(),
    };
    let mut last_time = String::new();
    let mut lines = Lines::new();
    let mut line = 0;
    while let Some(piece) = lines
        .next(&mut |buffer| reader.read(buffer))
        .map_err(VerifyError::Io)?
    {
        line += 1;
        let offset = piece.offset;
        let record = match piece.line() {
            Some(text) => checker.check(text),
            None if piece.bytes.len() > crate::record::MAX_LINE => Err(Damage::NotRecord),
            None => Err(Damage::TornTail),
        };
        let record = record.map_err(|source| VerifyError::Damaged {
            line,
            offset,
            source,
        })?;
        if let Some(expected) = expected
            .iter()
            .flatten()
            .find(|head| head.seq == record.seq && !head.hash.matches(&record.hash))
        {
            return Err(VerifyError::Rewritten {
                expected: *expected,
                found: record.hash,
            });
        }
        match record.notice {
            Some(Notice::TailRepaired) => report.repairs += 1,
            Some(Notice::LogRecovered) => report.recoveries += 1,
            Some(Notice::Created(_)) | None => {}
        }
        report.records += 1;
        report.bytes = offset + piece.bytes.len() as u64;
        report
            .first_time
            .get_or_insert_with(|| record.time.to_owned());
        last_time.clear();
        last_time.push_str(record.time);
    }
    report.head = checker.head();
    report.last_time = (report.records > 0).then_some(last_time);
    check_heads(options, report.head)?;
    Ok(report)
}

fn check_heads(options: &VerifyOptions, found: Head) -> Result<(), VerifyError> {
    let ends_before = |head: &Head| found.seq < head.seq;
    if let Some(expected) = [options.expect_head, options.expect_at_least]
        .into_iter()
        .flatten()
        .find(ends_before)
    {
        return Err(VerifyError::Truncated { expected, found });
    }
    match options.expect_head {
        Some(expected) if expected.seq < found.seq => Err(VerifyError::Longer { expected, found }),
        _ => Ok(()),
    }
}

/// Follows a chain line by line.
#[derive(Debug)]
pub(crate) struct Checker {
    sealer: Sealer,
    head: Head,
}

impl Checker {
    pub(crate) fn new(key: Option<&ChainKey>) -> Self {
        Self {
            sealer: Sealer::new(key),
            head: Head::EMPTY,
        }
    }

    /// The last good record.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Takes the next line, without its LF. After an error the head stays where it was.
    pub(crate) fn check<'a>(&mut self, line: &'a [u8]) -> Result<Parsed<'a>, Damage> {
        let record = parse(line).ok_or(Damage::NotRecord)?;
        if record.seq == 1
            && let Some(Notice::Created(key_id)) = &record.notice
        {
            match (key_id, self.sealer.key_id()) {
                (Some(_), None) => return Err(Damage::KeyNeeded),
                (None, Some(_)) => return Err(Damage::NotKeyed),
                (Some(found), Some(ours)) if found.as_bytes() != ours => {
                    return Err(Damage::WrongKey);
                }
                _ => {}
            }
        }
        if !self.sealer.seal(record.open).matches(&record.hash) {
            return Err(Damage::BadHash);
        }
        let (expected, found) = (self.head.seq + 1, record.seq);
        if found > expected {
            return Err(Damage::Missing { expected, found });
        }
        if found < expected {
            return Err(Damage::WrongSequence { expected, found });
        }
        if record.prev != self.head.hash {
            return Err(Damage::BrokenLink);
        }
        if (found == 1) != matches!(record.notice, Some(Notice::Created(_))) {
            return Err(Damage::NoBeginning);
        }
        self.head = Head::new(found, record.hash);
        Ok(record)
    }
}
