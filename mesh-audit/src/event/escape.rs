//! Writes text inside a JSON string, escaped and cut to a limit.
//!
//! # Sources
//!
//! What must be escaped: RFC 8259, section 7. Beyond that: DEL and the C1 controls (ECMA-48 terminals obey
//! them), U+2028 and U+2029 (line ends to some readers), zero-width and bidirectional controls (Unicode
//! TR 36, section 2.5) and U+FEFF.

use std::fmt;

/// Takes text piece by piece; what exceeds the limit is counted, not kept.
pub(super) struct Escaper<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
    cut: u64,
}

impl<'a> Escaper<'a> {
    /// Writes to `out` at most `room` bytes of text, counted before escaping.
    pub(super) fn new(out: &'a mut Vec<u8>, room: usize) -> Self {
        Self { out, room, cut: 0 }
    }

    pub(super) fn push(&mut self, text: &str) {
        // After the first cut nothing more is kept, or the text would have a hole.
        let kept = if self.cut > 0 {
            0
        } else {
            text.floor_char_boundary(self.room)
        };
        let (text, rest) = text.split_at(kept);
        self.room -= kept;
        self.cut += rest.len() as u64;
        if text.bytes().all(is_plain) {
            self.out.extend_from_slice(text.as_bytes());
            return;
        }
        for c in text.chars() {
            self.push_char(c);
        }
    }

    /// Bytes of text that were left out.
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    fn push_char(&mut self, c: char) {
        match c {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            _ if must_escape(c) => {
                // All of them are in the basic plane, so one unit is enough.
                let code = u32::from(c);
                self.out.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    self.out
                        .push(b"0123456789abcdef"[(code >> shift & 15) as usize]);
                }
            }
            _ => self
                .out
                .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

impl fmt::Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn must_escape(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
