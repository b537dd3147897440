//! One shard of a limiter: records found by hash, in places that are reused.

use hashbrown::HashTable;

/// Records of some of the keys.
///
/// Places come in chunks that are never moved, so that growing costs no copy and no spare half.
#[derive(Debug)]
pub(super) struct Shard {
    index: HashTable<u32>,
    chunks: Vec<Chunk>,
    len: usize,
    /// Where the next search for an old key begins.
    hand: usize,
}

#[derive(Debug)]
struct Chunk {
    names: Box<[Name]>,
    words: Box<[u16]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Name {
    hash: u64,
    /// Time of the last admitted call in microseconds.
    last: u64,
}

impl Shard {
    pub(super) const fn new() -> Self {
        Self {
            index: HashTable::new(),
            chunks: Vec::new(),
            len: 0,
            hand: 0,
        }
    }

    pub(super) fn find(&self, hash: u64) -> Option<usize> {
        let place = self
            .index
            .find(hash, |place| self.name(widen(*place)).hash == hash)?;
        Some(widen(*place))
    }

    /// Returns the time of the last admitted call at `place`, and the record.
    pub(super) fn entry(&mut self, place: usize, stride: usize) -> (&mut u64, &mut [u16]) {
        let chunk = &mut self.chunks[place / CHUNK];
        let within = place % CHUNK;
        (
            &mut chunk.names[within].last,
            &mut chunk.words[within * stride..(within + 1) * stride],
        )
    }

    /// Adds a key and returns its place.
    pub(super) fn push(&mut self, hash: u64, stride: usize) -> usize {
        let place = self.len;
        if place / CHUNK == self.chunks.len() {
            let names = vec![Name::default(); CHUNK].into_boxed_slice();
            self.chunks.push(Chunk {
                names,
                words: vec![0; CHUNK * stride].into_boxed_slice(),
            });
        }
        self.len += 1;
        self.set(place, hash);
        place
    }

    /// Forgets the least recently admitted of a few keys in favour of `hash`, and returns its place.
    pub(super) fn replace_oldest(&mut self, hash: u64, stride: usize) -> usize {
        let sample = (0..SAMPLE.min(self.len)).map(|step| (self.hand + step) % self.len);
        let place = sample
            .min_by_key(|place| self.name(*place).last)
            .unwrap_or(0);
        self.hand = (self.hand + SAMPLE) % self.len;
        let old = self.name(place).hash;
        if let Ok(entry) = self.index.find_entry(old, |other| widen(*other) == place) {
            entry.remove();
        }
        self.entry(place, stride).1.fill(0);
        self.set(place, hash);
        place
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn memory(&self) -> usize {
        let chunks = self
            .chunks
            .iter()
            .map(|chunk| size_of_val(&*chunk.names) + size_of_val(&*chunk.words));
        chunks.sum::<usize>() + self.index.allocation_size()
    }

    fn set(&mut self, place: usize, hash: u64) {
        self.chunks[place / CHUNK].names[place % CHUNK] = Name { hash, last: 0 };
        let chunks = &self.chunks;
        let hash_of = |place: &u32| chunks[widen(*place) / CHUNK].names[widen(*place) % CHUNK].hash;
        // The number of places is bounded far below 2^32 by their size.
        self.index
            .insert_unique(hash, u32::try_from(place).unwrap_or(u32::MAX), hash_of);
    }

    fn name(&self, place: usize) -> &Name {
        &self.chunks[place / CHUNK].names[place % CHUNK]
    }
}

const fn widen(place: u32) -> usize {
    place as usize
}

/// Places added at a time.
const CHUNK: usize = 64;
/// Keys looked at when one must go. Redis finds five nearly as good as a true LRU, and ten indistinguishable.
const SAMPLE: usize = 8;
