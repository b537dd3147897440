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

use super::record::{Hot, Locked};

/// Records by the hash of their key, which is not zero.
#[derive(Debug)]
pub(super) struct Table {
    /// For each place in use its number plus one, below eight bits of its hash. Zero: free.
    index: Box<[AtomicU32]>,
    chunks: Box<[OnceLock<Chunk>]>,
    /// Words that the rings of one key take.
    stride: usize,
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

#[derive(Debug)]
struct Chunk {
    hot: Box<[Hot]>,
    rings: Box<[AtomicU64]>,
}

impl Table {
    pub(super) fn new(max_keys: usize, stride: usize) -> Self {
        let slots = (max_keys * 2).next_power_of_two();
        Self {
            index: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            chunks: (0..max_keys.div_ceil(CHUNK))
                .map(|_| OnceLock::new())
                .collect(),
            stride,
            max_keys,
            keys: AtomicUsize::new(0),
            forgotten: AtomicU64::new(0),
            writer: Mutex::new(Writer { hand: 0 }),
        }
    }

    /// The place of a key's record, if it has one; without a lock, so that it may overlook what just changes.
    pub(super) fn find(&self, hash: u64) -> Option<usize> {
        let mask = self.index.len() - 1;
        let mut slot = home(hash, mask);
        // At least half of the slots are free.
        for _ in 0..=mask {
            let entry = self.index[slot].load(Acquire);
            if entry == 0 {
                return None;
            }
            if entry & !PLACE == tag(hash) && self.record(place_of(entry)).0.is_of(hash) {
                return Some(place_of(entry));
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    /// The record at a place that was found, and its rings.
    pub(super) fn record(&self, place: usize) -> (&Hot, &[AtomicU64]) {
        // A place is in the index only after its chunk is there.
        let chunk = self.chunks[place / CHUNK].get_or_init(|| Chunk::new(self.stride));
        let within = place % CHUNK;
        let rings = &chunk.rings[within * self.stride..(within + 1) * self.stride];
        (&chunk.hot[within], rings)
    }

    /// The locked record of a key and its rings: at `found` if it is still there, else wherever it is, else, with the time of
    /// `new_at`, a new one.
    pub(super) fn lock(
        &self,
        hash: u64,
        found: Option<usize>,
        new_at: Option<u64>,
    ) -> Option<(Locked<'_>, &[AtomicU64])> {
        let mut place = found;
        loop {
            if let Some((hot, rings)) = place.map(|place| self.record(place)) {
                let locked = hot.lock();
                if hot.is_of(hash) {
                    return Some((locked, rings));
                }
            }
            let mut writer = self.writer.lock();
            place = self.find(hash);
            if place.is_none() {
                place = Some(self.insert(&mut writer, hash, new_at?));
            }
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    pub(super) fn memory(&self) -> usize {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        let chunks = chunks.map(|chunk| size_of_val(&*chunk.hot) + size_of_val(&*chunk.rings));
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
        self.chunks[place / CHUNK].get_or_init(|| Chunk::new(self.stride));
        self.hot(place).lock().begin(hash, now);
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
            .min_by_key(|place| self.hot(*place).last())
            .unwrap_or(0);
        writer.hand = (writer.hand + 1) % apart;
        self.forgotten.fetch_add(1, Relaxed);

        // Knuth, "The Art of Computer Programming", volume 3, section 6.4, algorithm R: what stands behind moves up.
        let mask = self.index.len() - 1;
        let mut free = home(self.hot(place).hash(), mask);
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
            let wanted = home(self.hot(place_of(entry)).hash(), mask);
            if slot.wrapping_sub(wanted) & mask >= slot.wrapping_sub(free) & mask {
                self.index[free].store(entry, Release);
                free = slot;
            }
        }
        self.index[free].store(0, Release);
        place
    }

    fn hot(&self, place: usize) -> &Hot {
        self.record(place).0
    }
}

impl Chunk {
    fn new(stride: usize) -> Self {
        Self {
            hot: (0..CHUNK).map(|_| Hot::default()).collect(),
            rings: (0..CHUNK * stride).map(|_| AtomicU64::new(0)).collect(),
        }
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
/// Places added at a time.
const CHUNK: usize = 128;
/// Keys looked at when one must go. Redis finds five nearly as good as a true LRU, and ten indistinguishable.
const SAMPLE: usize = 8;
