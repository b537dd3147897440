//! The line: how a record is written, to the byte, and how it is read back.
//!
//! A log is a sequence of lines, each ended by one LF (0x0a). A line is one JSON object (RFC 8259),
//! UTF-8, without white space between its tokens and without a byte below 0x20:
//!
//! ```text
//! {"seq":2,"time":"2026-11-22T05:06:47.123Z","event":"message","synced":1,"peer":"a","prev":"…64…","hash":"…64…"}
//! ```
//!
//! | member | value |
//! |---|---|
//! | `seq` | number of the record: 1, 2, 3 … without a hole |
//! | `time` | when the event was appended, RFC 3339, UTC, milliseconds; may step back if the clock does |
//! | `event` | `connection`, `message`, `error`, `key_rotation` or `notice` |
//! | `synced` | highest `seq` known to be on stable storage when this line was written; below `seq` |
//! | … | the fields of the event, in their order |
//! | `prev` | `hash` of the record before; 64 zeros in the first |
//! | `hash` | lower-case hexadecimal; the last 75 bytes of the line are `,"hash":"`, 64 digits, `"}` |
//!
//! `hash` is SHA-256 over the line without its `hash` member: the bytes of the line (no LF) with the last 75
//! replaced by `}`. As `prev` is among these bytes, each hash covers all records before it. In a keyed log it
//! is HMAC-SHA256 with the chain key over the same bytes.
//!
//! The first record is a notice with `"notice":"log_created","format":"mesh-audit/1"` and
//! `"chain":"sha256"`, or `"chain":"hmac-sha256"` and `key_id`, the first 16 digits of the HMAC of the text
//! `mesh-audit key id`. Two more notices are written by the log itself, and by no one else, since no event can have a
//! field of that name: `tail_repaired` (`cut_bytes`, `cut_at`, `cut_sha256`) after a crash and `log_recovered`
//! (`cut_bytes`, `cut_at`, `cut_sha256`, `refused`, `error`) after a failed write.
//!
//! So this script checks a log in Python, with the key in hexadecimal as its second argument if there is one:
//!
//! ```python
#![doc = include_str!("../tests/verify.py")]
//! ```
//!
//! # Sources
//!
//! `synced` is what tells a crash from damage. A crash can lose or garble, in any order, only what was not synced
//! (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014, section 2), so a garbled record is the trace of a
//! crash only if no later record says that it had been synced.
//! Dates: Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::chain::{Head, RecordHash, Sealer};
use crate::event::{Event, EventKind, write_number};

/// Milliseconds since 1970, as recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Millis(u64);

impl Millis {
    /// Times before 1970 become 1970 and those past the year 9999 become its end: RFC 3339 has
    /// four digits for a year.
    pub(crate) fn from_system(time: SystemTime) -> Self {
        let millis = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        Self(
            u64::try_from(millis)
                .unwrap_or(LAST_MILLIS)
                .min(LAST_MILLIS),
        )
    }

    fn rfc3339(self) -> [u8; TIME_BYTES] {
        let (days, millis) = (self.0 / DAY_MILLIS, self.0 % DAY_MILLIS);
        // Days since 0000-03-01, so that a leap day ends a year.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);

        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, width: usize, mut number: u64| {
            for digit in text.iter_mut().skip(at).take(width).rev() {
                *digit = b"0123456789"[(number % 10) as usize];
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, millis / 3_600_000);
        put(14, 2, millis / 60_000 % 60);
        put(17, 2, millis / 1000 % 60);
        put(20, 3, millis % 1000);
        text
    }
}

/// The writing end of a chain.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    sealer: Sealer,
    head: Head,
}

impl Chain {
    pub(crate) fn new(sealer: Sealer, head: Head) -> Self {
        Self { sealer, head }
    }

    /// The record written last.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Forgets the records after `head`.
    pub(crate) fn rewind(&mut self, head: Head) {
        self.head = head;
    }

    /// Appends a line with these fields and returns its head.
    pub(crate) fn seal(
        &mut self,
        out: &mut Vec<u8>,
        (kind, time): (EventKind, Millis),
        synced: u64,
        fields: &[u8],
    ) -> Head {
        let seq = self.head.seq + 1;
        let start = out.len();
        out.extend_from_slice(b"{\"seq\":");
        write_number(out, seq);
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(&time.rfc3339());
        out.extend_from_slice(b"\",\"event\":\"");
        out.extend_from_slice(kind.as_str().as_bytes());
        out.extend_from_slice(b"\",\"synced\":");
        write_number(out, synced);
        out.extend_from_slice(fields);
        out.extend_from_slice(b",\"prev\":\"");
        out.extend_from_slice(&self.head.hash.hex());
        out.push(b'"');
        let hash = self.sealer.seal(out.get(start..).unwrap_or_default());
        out.extend_from_slice(b",\"hash\":\"");
        out.extend_from_slice(&hash.hex());
        out.extend_from_slice(b"\"}\n");
        self.head = Head::new(seq, hash);
        self.head
    }

    /// Appends the first record of a log.
    pub(crate) fn seal_created(&mut self, out: &mut Vec<u8>, time: Millis) {
        let mut fields =
            b",\"notice\":\"log_created\",\"format\":\"mesh-audit/1\",\"chain\":\"".to_vec();
        match self.sealer.key_id() {
            None => fields.extend_from_slice(b"sha256\""),
            Some(id) => {
                fields.extend_from_slice(b"hmac-sha256\",\"key_id\":\"");
                fields.extend_from_slice(&id);
                fields.push(b'"');
            }
        }
        self.seal(out, (EventKind::Notice, time), 0, &fields);
    }

    /// Appends a notice of the log itself about bytes that were cut from the file.
    pub(crate) fn seal_cut(
        &mut self,
        out: &mut Vec<u8>,
        time: Millis,
        synced: u64,
        notice: &Cut<'_>,
    ) {
        let event = Event::new(EventKind::Notice)
            .with("cut_bytes", notice.bytes)
            .with("cut_at", notice.at)
            .with_display("cut_sha256", &notice.sha256);
        let mut fields = b",\"notice\":\"".to_vec();
        let event = match notice.failure {
            None => {
                fields.extend_from_slice(TAIL_REPAIRED);
                event
            }
            Some((refused, error)) => {
                fields.extend_from_slice(LOG_RECOVERED);
                event.with("refused", refused).with_display("error", error)
            }
        };
        fields.push(b'"');
        fields.append(&mut event.into_fields());
        self.seal(out, (EventKind::Notice, time), synced, &fields);
    }
}

/// What was cut from a file, and why.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    pub(crate) bytes: u64,
    pub(crate) at: u64,
    pub(crate) sha256: RecordHash,
    /// Events refused while the log could not be written, and the error; none after a crash.
    pub(crate) failure: Option<(u64, &'a std::io::Error)>,
}

/// A line whose form is right; its hash is not checked yet.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) seq: u64,
    pub(crate) time: &'a str,
    pub(crate) synced: u64,
    pub(crate) notice: Option<Notice<'a>>,
    pub(crate) prev: RecordHash,
    pub(crate) hash: RecordHash,
    /// The bytes that the hash covers, without the closing brace.
    pub(crate) open: &'a [u8],
}

/// A notice that only the log itself can write.
#[derive(Debug, PartialEq)]
pub(crate) enum Notice<'a> {
    /// The key id, if the log is keyed.
    Created(Option<&'a str>),
    TailRepaired,
    LogRecovered,
}

/// Reads a line without its LF; `None` if it is no record.
pub(crate) fn parse(line: &[u8]) -> Option<Parsed<'_>> {
    if line.len() > MAX_LINE {
        return None;
    }
    let (open, tail) = line.split_at_checked(line.len().checked_sub(HASH_MEMBER)?)?;
    let hash = RecordHash::from_hex(tail.strip_prefix(b",\"hash\":\"")?.strip_suffix(b"\"}")?)?;
    let (rest, prev) = open.split_at_checked(open.len().checked_sub(PREV_MEMBER)?)?;
    let prev = RecordHash::from_hex(prev.strip_prefix(b",\"prev\":\"")?.strip_suffix(b"\"")?)?;

    let (seq, rest) = number(rest.strip_prefix(b"{\"seq\":")?)?;
    let (time, rest) = rest
        .strip_prefix(b",\"time\":\"")?
        .split_at_checked(TIME_BYTES)?;
    let rest = rest.strip_prefix(b"\",\"event\":\"")?;
    let (kind, rest) = rest.split_at_checked(rest.iter().position(|&byte| byte == b'"')?)?;
    let _kind: EventKind = std::str::from_utf8(kind).ok()?.parse().ok()?;
    let (synced, fields) = number(rest.strip_prefix(b"\",\"synced\":")?)?;

    let text = std::str::from_utf8(line).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let time = std::str::from_utf8(time).ok()?;
    let is_time = time
        .bytes()
        .zip(*b"0000-00-00T00:00:00.000Z")
        .all(|(found, pattern)| match pattern {
            b'0' => found.is_ascii_digit(),
            _ => found == pattern,
        });
    (is_time && synced < seq).then_some(Parsed {
        seq,
        time,
        synced,
        notice: notice(fields),
        prev,
        hash,
        open,
    })
}

fn notice(fields: &[u8]) -> Option<Notice<'_>> {
    let rest = fields.strip_prefix(b",\"notice\":\"")?;
    if let Some(rest) = rest.strip_prefix(b"log_created\",\"format\":\"mesh-audit/1\",\"chain\":\"")
    {
        if rest == b"sha256\"" {
            return Some(Notice::Created(None));
        }
        let id = rest
            .strip_prefix(b"hmac-sha256\",\"key_id\":\"")?
            .strip_suffix(b"\"")?;
        return Some(Notice::Created(Some(std::str::from_utf8(id).ok()?)));
    }
    let (name, _) = rest.split_at_checked(rest.iter().position(|&byte| byte == b'"')?)?;
    match name {
        TAIL_REPAIRED => Some(Notice::TailRepaired),
        LOG_RECOVERED => Some(Notice::LogRecovered),
        _ => None,
    }
}

/// A decimal number as [`write_number`] writes it: no sign, no leading zero.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits)?;
    if digits.len() > 1 && digits.starts_with(b"0") {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// Longest line: all fields, and the members of the log with the largest numbers (about 330 bytes).
pub(crate) const MAX_LINE: usize = Event::MAX_BYTES + 1024;

const TAIL_REPAIRED: &[u8] = b"tail_repaired";
const LOG_RECOVERED: &[u8] = b"log_recovered";
/// `,"hash":"`, 64 digits, `"}`.
const HASH_MEMBER: usize = 75;
/// `,"prev":"`, 64 digits, `"`.
const PREV_MEMBER: usize = 74;
/// `2026-11-22T05:06:47.123Z`.
const TIME_BYTES: usize = 24;
const DAY_MILLIS: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z.
const LAST_MILLIS: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn time(seconds: u64, millis: u64) -> String {
        let time = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
        String::from_utf8(Millis::from_system(time).rfc3339().to_vec()).unwrap()
    }

    #[test]
    fn writes_dates_as_rfc_3339() {
        assert_eq!(time(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(time(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(time(1_735_689_599, 999), "2024-12-31T23:59:59.999Z");
        assert_eq!(time(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(time(253_402_300_799, 999), "9999-12-31T23:59:59.999Z");
        assert_eq!(time(253_402_300_800, 0), "9999-12-31T23:59:59.999Z");
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(
            Millis::from_system(before).rfc3339(),
            *b"1970-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn reads_what_it_writes() {
        let mut chain = Chain::new(Sealer::new(None), Head::EMPTY);
        let mut line = Vec::new();
        let at = Millis::from_system(UNIX_EPOCH);
        chain.seal_created(&mut line, at);
        let created = parse(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(
            (created.seq, created.synced, created.notice),
            (1, 0, Some(Notice::Created(None)))
        );
        let first = chain.head();

        let mut line = Vec::new();
        let fields = Event::new(EventKind::Message)
            .with("peer", "a\"\n")
            .into_fields();
        let head = chain.seal(&mut line, (EventKind::Message, at), 1, &fields);
        let parsed = parse(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(
            (parsed.seq, parsed.synced, parsed.prev, parsed.hash),
            (2, 1, first.hash, head.hash)
        );
        assert!(parsed.notice.is_none());
    }

    #[test]
    fn refuses_lines_that_only_look_like_records() {
        let mut line = Vec::new();
        Chain::new(Sealer::new(None), Head::EMPTY).seal(
            &mut line,
            (EventKind::Error, Millis(0)),
            0,
            b",\"a\":1",
        );
        let line = String::from_utf8(line).unwrap().trim_end().to_owned();
        assert!(parse(line.as_bytes()).is_some());
        for (from, to) in [
            ("\"seq\":1", "\"seq\":01"),
            ("error", "errors"),
            (":1,\"prev", ":,\"prev"),
            ("Z\"", "+\""),
            ("{", " {"),
        ] {
            assert!(parse(line.replace(from, to).as_bytes()).is_none(), "{to}");
        }
        for at in 0..line.len() {
            assert!(parse(line.as_bytes().get(..at).unwrap()).is_none());
        }
    }
}
