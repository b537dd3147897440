//! Reads a log record by record, checking the chain on the way.

use std::io;
use std::ops::ControlFlow;

use crate::lines::Lines;
use crate::record::{MAX_LINE, parse};
use crate::verify::{Checker, Damage, VerifyError, VerifyOptions};

/// A record that was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// Its number.
    pub seq: u64,
    /// When it was written (RFC 3339, UTC).
    pub time: &'a str,
    /// The whole line without its LF: one JSON object.
    pub text: &'a str,
}

/// Hands every record of a log to `visit`, oldest first, in constant memory (about 160 KiB), until it breaks off.
///
/// Unlike [`verify`](crate::verify()), which answers whether a log can be relied on, this goes on where something is wrong,
/// so that what is still there can be read. It gives the first thing that is wrong up to where it stopped; records from
/// there on are not checked any more. Lines that are no records, a torn last line among them, are left out. Of the options
/// only the key counts.
///
/// # Errors
///
/// The log can't be read.
pub fn read<R: io::Read>(
    mut reader: R,
    options: &VerifyOptions,
    mut visit: impl FnMut(&Record<'_>) -> ControlFlow<()>,
) -> io::Result<Option<VerifyError>> {
    let mut checker = Checker::new(options.key.as_ref());
    let mut lines = Lines::new();
    let (mut line, mut wrong) = (0, None);
    while let Some(piece) = lines.next(&mut |buffer| reader.read(buffer))? {
        line += 1;
        let verdict = match piece.line() {
            Some(text) if wrong.is_none() => checker.check(text).map(|_parsed| ()),
            Some(_) => Ok(()),
            None if piece.bytes.len() > MAX_LINE => Err(Damage::NotRecord),
            None => Err(Damage::TornTail),
        };
        if let Err(source) = verdict {
            let offset = piece.offset;
            wrong.get_or_insert(VerifyError::Damaged {
                line,
                offset,
                source,
            });
        }
        let Some(text) = piece.line() else { continue };
        let (Some(parsed), Ok(text)) = (parse(text), std::str::from_utf8(text)) else {
            continue;
        };
        let record = Record {
            seq: parsed.seq,
            time: parsed.time,
            text,
        };
        if visit(&record).is_break() {
            break;
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Head, Sealer};
    use crate::event::{Event, EventKind};
    use crate::record::{Chain, Millis};

    fn log() -> String {
        let mut chain = Chain::new(Sealer::new(None), Head::EMPTY);
        let at = Millis::from_system(std::time::UNIX_EPOCH);
        let mut out = Vec::new();
        chain.seal_created(&mut out, at);
        for n in 0..4_u32 {
            let fields = Event::new(EventKind::Message).with("n", n).into_fields();
            chain.seal(&mut out, (EventKind::Message, at), 1, &fields);
        }
        String::from_utf8(out).unwrap()
    }

    fn numbers(log: &str) -> (Vec<u64>, Option<String>) {
        let mut seen = Vec::new();
        let wrong = read(log.as_bytes(), &VerifyOptions::default(), |record| {
            seen.push(record.seq);
            ControlFlow::Continue(())
        });
        let wrong = wrong.unwrap().map(|error| match error {
            VerifyError::Damaged { line, source, .. } => format!("{line}: {source}"),
            other => other.to_string(),
        });
        (seen, wrong)
    }

    #[test]
    fn reads_every_record_of_an_intact_log() {
        assert_eq!(numbers(&log()), (vec![1, 2, 3, 4, 5], None));
        assert_eq!(numbers(""), (vec![], None));
    }

    #[test]
    fn reads_on_past_damage_and_says_where_it_begins() {
        let edited = log().replace("\"n\":1", "\"n\":7");
        let (seen, wrong) = numbers(&edited);
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert!(wrong.unwrap().starts_with("3: the hash does not fit"));
        let lines: Vec<String> = log().lines().map(|line| format!("{line}\n")).collect();
        let (seen, wrong) = numbers(&[&*lines[0], "rubbish\n", &lines[1], &lines[3]].concat());
        assert_eq!(seen, [1, 2, 4]);
        assert!(wrong.unwrap().starts_with("2: "));
    }

    #[test]
    fn leaves_a_torn_last_line_out_and_says_so() {
        let log = log();
        let (seen, wrong) = numbers(log.get(..log.len() - 9).unwrap());
        assert_eq!(seen, [1, 2, 3, 4]);
        assert!(wrong.unwrap().starts_with("5: the last line is torn"));
    }

    #[test]
    fn stops_when_told() {
        let mut seen = 0;
        let wrong = read(log().as_bytes(), &VerifyOptions::default(), |record| {
            seen = record.seq;
            if record.text.contains("\"n\":1") {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(wrong.unwrap().is_none() && seen == 3);
    }
}
