//! The table of keys: found without a lock, bounded, and growing in chunks that are never moved.
//!
//! The index is an open-addressed table of places. Who reads it may look while it changes, and so find nothing, or a place
//! that has just become another key's: a record says under its own lock whose it is, and who found nothing looks again
//! under the lock of those who write. So a key never has two records.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use parking_lot::Mutex;

use super::record::{HOT_BESIDE_PARTS, Locked, Record};

/// Records by the hash of their key, which is not zero.
#[derive(Debug)]
pub(super) struct Table {
    /// For each place in use its number plus one, below eight bits of its hash. Zero: free.
    index: Box<[AtomicU32]>,
    /// Each is twice as large as the one before, up to a bound and to what `max_keys` leaves.
    chunks: Box<[OnceLock<Chunk>]>,
    sizes: Sizes,
    max_keys: usize,
    keys: AtomicUsize,
    forgotten: AtomicU64,
    writer: Mutex<Writer>,
}

/// What those who write to the index share.
#[derive(Debug)]
struct Writer {
    /// Where the next search for an old key begins.
    hand: usize,
}

/// Words of one record.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    hot: usize,
    cold: usize,
}

#[derive(Debug)]
struct Chunk {
    hot: Box<[Line]>,
    cold: Box<[AtomicU64]>,
}

/// A cache line, of one or two records.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; LINE]);

impl Table {
    /// A table for limits of so many `parts`, whose rings take `rings` words.
    pub(super) fn new(max_keys: usize, parts: usize, rings: usize) -> Self {
        // At least a fifth stays free, so that a search ends soon.
        let slots = (max_keys + max_keys / 4 + 1).next_power_of_two();
        let (last, _) = locate(max_keys - 1);
        Self {
            index: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            chunks: (0..=last).map(|_| OnceLock::new()).collect(),
            sizes: Sizes {
                hot: if HOT_BESIDE_PARTS + parts <= LINE / 2 {
                    LINE / 2
                } else {
                    LINE
                },
                cold: 1 + rings,
            },
            max_keys,
            keys: AtomicUsize::new(0),
            forgotten: AtomicU64::new(0),
            writer: Mutex::new(Writer { hand: 0 }),
        }
    }

    /// The record of a key, if it has one; without a lock, so that it may overlook what just changes.
    #[inline]
    pub(super) fn find(&self, hash: u64) -> Option<Record<'_>> {
        let mask = self.index.len() - 1;
        let mut slot = home(hash, mask);
        for _ in 0..=mask {
            let entry = self.index[slot].load(Acquire);
            if entry == 0 {
                return None;
            }
            if entry & !PLACE == tag(hash) {
                let record = self.record(place_of(entry));
                if record.hash() == hash {
                    return Some(record);
                }
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    /// The locked record of a key: `found` if it is still its own, else wherever it is, else, with the time of `new_at`, a
    /// new one.
    #[inline]
    pub(super) fn lock<'a>(
        &'a self,
        hash: u64,
        found: Option<Record<'a>>,
        new_at: Option<u64>,
    ) -> Option<Locked<'a>> {
        if let Some(record) = found {
            let locked = record.lock();
            if record.hash() == hash {
                return Some(locked);
            }
        }
        self.lock_anew(hash, new_at)
    }

    #[cold]
    fn lock_anew(&self, hash: u64, new_at: Option<u64>) -> Option<Locked<'_>> {
        loop {
            let mut writer = self.writer.lock();
            let record = match self.find(hash) {
                Some(record) => record,
                None => self.record(self.insert(&mut writer, hash, new_at?)),
            };
            drop(writer);
            let locked = record.lock();
            if record.hash() == hash {
                return Some(locked);
            }
        }
    }

    /// The record at a place that was given out.
    #[inline]
    fn record(&self, place: usize) -> Record<'_> {
        let (number, within) = locate(place);
        // A place is in the index only after its chunk is there.
        let chunk = self.chunks[number].get_or_init(|| self.chunk(number));
        chunk.record(within, self.sizes)
    }

    fn chunk(&self, number: usize) -> Chunk {
        let (first, size) = if number < DOUBLINGS {
            (FIRST_CHUNK * ((1 << number) - 1), FIRST_CHUNK << number)
        } else {
            (DOUBLED + (number - DOUBLINGS) * LAST_CHUNK, LAST_CHUNK)
        };
        Chunk::new(size.min(self.max_keys - first), self.sizes)
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    pub(super) fn memory(&self) -> usize {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        let chunks = chunks.map(|chunk| size_of_val(&*chunk.hot) + size_of_val(&*chunk.cold));
        size_of_val(&*self.index) + size_of_val(&*self.chunks) + chunks.sum::<usize>()
    }

    /// Makes a record for a key that has none: a fresh one while there are fewer than `max_keys`, else that of an old key.
    fn insert(&self, writer: &mut Writer, hash: u64, now: u64) -> usize {
        let keys = self.keys.load(Relaxed);
        let place = if keys < self.max_keys {
            self.keys.store(keys + 1, Relaxed);
            keys
        } else {
            self.forget_one(writer)
        };
        self.record(place).lock().begin(hash, now);
        let mask = self.index.len() - 1;
        let mut slot = home(hash, mask);
        while self.index[slot].load(Relaxed) != 0 {
            slot = (slot + 1) & mask;
        }
        // Places have 24 bits; `LimitConfig` says so.
        let number = u32::try_from(place + 1).unwrap_or(PLACE);
        self.index[slot].store(tag(hash) | number, Release);
        place
    }

    /// Takes the least recently counted of a few keys from the index, and returns its place.
    fn forget_one(&self, writer: &mut Writer) -> usize {
        // Far apart: keys that came together are neighbours, and about as old as each other.
        let apart = self.max_keys.div_ceil(SAMPLE);
        let sample = (0..SAMPLE).map(|step| (writer.hand + step * apart) % self.max_keys);
        let place = sample
            .min_by_key(|place| self.record(*place).last())
            .unwrap_or(0);
        writer.hand = (writer.hand + 1) % apart;
        self.forgotten.fetch_add(1, Relaxed);

        // Knuth, "The Art of Computer Programming", volume 3, section 6.4, algorithm R: what stands behind moves up.
        let mask = self.index.len() - 1;
        let mut free = home(self.record(place).hash(), mask);
        while place_of(self.index[free].load(Relaxed)) != place {
            free = (free + 1) & mask;
        }
        let mut slot = free;
        loop {
            slot = (slot + 1) & mask;
            let entry = self.index[slot].load(Relaxed);
            if entry == 0 {
                break;
            }
            let wanted = home(self.record(place_of(entry)).hash(), mask);
            if slot.wrapping_sub(wanted) & mask >= slot.wrapping_sub(free) & mask {
                self.index[free].store(entry, Release);
                free = slot;
            }
        }
        self.index[free].store(0, Release);
        place
    }
}

impl Chunk {
    fn new(keys: usize, Sizes { hot, cold }: Sizes) -> Self {
        let lines = keys.div_ceil(LINE / hot);
        Self {
            hot: (0..lines).map(|_| Line::default()).collect(),
            cold: (0..keys * cold).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    #[inline]
    fn record(&self, within: usize, Sizes { hot, cold }: Sizes) -> Record<'_> {
        // Neighbours, which came together, are in lines of their own.
        let lines = self.hot.len();
        let (line, at) = match within.checked_sub(lines) {
            None => (within, 0),
            Some(line) => (line, LINE - hot),
        };
        Record::new(
            &self.hot[line].0[at..at + hot],
            &self.cold[within * cold..(within + 1) * cold],
        )
    }
}

/// The chunk of a place, and the place within it.
const fn locate(place: usize) -> (usize, usize) {
    if place < DOUBLED {
        let number = (place / FIRST_CHUNK + 1).ilog2() as usize;
        (number, place - FIRST_CHUNK * ((1 << number) - 1))
    } else {
        let beyond = place - DOUBLED;
        (DOUBLINGS + beyond / LAST_CHUNK, beyond % LAST_CHUNK)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low bits choose the slot"
)]
const fn home(hash: u64, mask: usize) -> usize {
    hash as usize & mask
}

const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & !PLACE
}

/// The place that an entry names; that of a free slot is none.
const fn place_of(entry: u32) -> usize {
    ((entry & PLACE) as usize).wrapping_sub(1)
}

/// The bits of an entry that are a place.
const PLACE: u32 = 0x00FF_FFFF;
/// Places of the first chunk.
const FIRST_CHUNK: usize = 128;
/// Chunks that are smaller than the largest ones.
const DOUBLINGS: usize = 5;
/// Places of the largest chunks: few enough that one is there within a millisecond.
const LAST_CHUNK: usize = FIRST_CHUNK << DOUBLINGS;
/// Places of all smaller ones.
const DOUBLED: usize = FIRST_CHUNK * ((1 << DOUBLINGS) - 1);
/// Words of a cache line.
const LINE: usize = 8;
/// Keys looked at when one must go. Redis finds five nearly as good as a true LRU, and ten indistinguishable.
const SAMPLE: usize = 8;

const _: () = assert!(size_of::<Line>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_each_other_through_all_chunks() {
        let (mut number, mut within) = (0, 0);
        for place in 0..4 * LAST_CHUNK {
            let expected = if locate(place).0 == number {
                (number, within)
            } else {
                (number + 1, 0)
            };
            assert_eq!(locate(place), expected, "{place}");
            (number, within) = (expected.0, expected.1 + 1);
        }
        assert_eq!(locate(DOUBLED - 1), (DOUBLINGS - 1, LAST_CHUNK / 2 - 1));
    }

    #[test]
    fn a_table_of_any_size_holds_as_many_keys_as_it_says() {
        for max_keys in [1, 2, 3, 127, 128, 129, 3_967, 3_968, 3_969, 9_000] {
            for parts in [1, 3] {
                let table = Table::new(max_keys, parts, 1);
                let keys = u64::try_from(max_keys).unwrap();
                for key in 1..=keys + 10 {
                    let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let locked = table.lock(hash, table.find(hash), Some(key)).unwrap();
                    assert_eq!(locked.record.hash(), hash);
                    locked.record.part(parts - 1).store(key, Relaxed);
                }
                assert_eq!((table.keys(), table.forgotten()), (max_keys, 10));
                let kept = (1..=keys + 10).filter(|key| {
                    let found = table.find(key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                    found.is_some_and(|record| record.part(parts - 1).load(Relaxed) == *key)
                });
                assert_eq!(kept.count(), max_keys);
            }
        }
    }
}
