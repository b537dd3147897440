//! Looking for a secret in the memory of this very process.
//!
//! What is looked for is kept masked, so that the search does not find itself; so is what a test makes its secret from.

use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Held by each test that counts: another one's secrets must not be in the way.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A secret that is not in memory as it is, unless somebody put it there.
#[derive(Clone)]
pub(crate) struct Canary {
    masked: Vec<u8>,
}

impl Canary {
    /// The bytes that hexadecimal digits stand for.
    pub(crate) fn from_hex(text: &str) -> Self {
        let digit = |byte: &u8| u8::try_from(char::from(*byte).to_digit(16).unwrap()).unwrap();
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        assert!(rest.is_empty());
        let masked = pairs
            .iter()
            .map(|[high, low]| (digit(high) << 4 | digit(low)) ^ MASK);
        Self {
            masked: masked.collect(),
        }
    }

    /// The same bytes, the last one first: a number as little-endian words hold it.
    pub(crate) fn reversed(&self) -> Self {
        let masked = self.masked.iter().rev().copied().collect();
        Self { masked }
    }

    pub(crate) fn len(&self) -> usize {
        self.masked.len()
    }

    /// Writes the secret itself.
    pub(crate) fn write(&self, out: &mut [u8]) {
        for (to, from) in out.iter_mut().zip(&self.masked) {
            *to = from ^ MASK;
        }
    }

    /// How often the secret is in the memory that this process can write to.
    pub(crate) fn count(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut buffer = vec![0; CHUNK];
        let own = buffer.as_ptr().addr()..buffer.as_ptr().addr() + CHUNK;
        let mut found = 0;
        for (start, end) in writable() {
            // All but what is read into.
            for (start, end) in [(start, end.min(own.start)), (start.max(own.end), end)] {
                found += self.count_in(&memory, start..end.max(start), &mut buffer);
            }
        }
        buffer.fill(0);
        std::hint::black_box(&buffer);
        found
    }

    fn count_in(&self, memory: &File, range: std::ops::Range<usize>, buffer: &mut [u8]) -> usize {
        let mut found = 0;
        let mut at = range.start;
        while at + self.len() <= range.end {
            let len = CHUNK.min(range.end - at);
            let read = memory.read_at(&mut buffer[..len], u64::try_from(at).unwrap());
            // The system keeps some pages to itself.
            let read = read.unwrap_or(0);
            if read < self.len() {
                break;
            }
            found += self.count_of(&buffer[..read]);
            // What lies across the border is whole in the next chunk.
            at += read - (self.len() - 1);
        }
        found
    }

    fn count_of(&self, chunk: &[u8]) -> usize {
        let first = self.masked[0] ^ MASK;
        let (mut found, mut rest) = (0, chunk);
        loop {
            let skipped = rest.skip_until(first).unwrap();
            let at = chunk.len() - rest.len();
            if skipped == 0 || chunk[at - 1] != first {
                return found;
            }
            let behind = chunk.get(at..at + self.len() - 1);
            let is_same = |behind: &[u8]| {
                let mut pairs = behind.iter().zip(&self.masked[1..]);
                pairs.all(|(byte, masked)| *byte == masked ^ MASK)
            };
            found += usize::from(behind.is_some_and(is_same));
        }
    }
}

/// Where this process can write.
fn writable() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let regions = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        rest.starts_with("rw").then(|| (number(start), number(end)))
    });
    regions.collect()
}

const MASK: u8 = 0xa5;
const CHUNK: usize = 1 << 16;
