//! What is kept of one key: a few words that every check reads, guarded by a bit of their own, and what few checks read.
//!
//! ```text
//!   hot   hash │ last call, flag, lock │ a word for each window │ a word for the bucket
//!   cold  blocked │ the rings of the windows
//! ```
//!
//! The hot words of a key are half a cache line, or a whole one where a limit has more than two parts: of 100,000 keys the
//! cache of a core then holds the more.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The words of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    hot: &'a [AtomicU64],
    cold: &'a [AtomicU64],
}

impl<'a> Record<'a> {
    /// `hot` are at least [`HOT_BESIDE_PARTS`] words, `cold` at least one.
    #[inline]
    pub(super) const fn new(hot: &'a [AtomicU64], cold: &'a [AtomicU64]) -> Self {
        Self { hot, cold }
    }

    /// Which key it is of. Changed only by who makes room in the table, under the lock.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        self.hot[HASH].load(Acquire)
    }

    /// Time of the last counted call, as far as one can tell without the lock.
    #[inline]
    pub(super) fn last(self) -> u64 {
        self.hot[LAST].load(Relaxed) >> BITS
    }

    /// Before when no call can pass, and which part says so; nothing where a call may have passed since.
    #[inline]
    pub(super) fn blocked(self) -> Option<(u64, usize)> {
        if self.hot[LAST].load(Acquire) & BLOCKED == 0 {
            return None;
        }
        let word = self.cold[0].load(Acquire);
        Some((word >> 3, usize::from(word.to_le_bytes()[0] & 7)))
    }

    /// The word of a part: a window's head, or the bucket's.
    #[inline]
    pub(super) fn part(self, part: usize) -> &'a AtomicU64 {
        &self.hot[HOT_BESIDE_PARTS + part]
    }

    /// The rings of all windows.
    #[inline]
    pub(super) fn rings(self) -> &'a [AtomicU64] {
        &self.cold[1..]
    }

    /// Waits until nobody else works on the record. What is done with it takes some tens of nanoseconds.
    #[inline]
    pub(super) fn lock(self) -> Locked<'a> {
        let guard = &self.hot[LAST];
        let mut tries = 0_u32;
        loop {
            let seen = guard.load(Relaxed);
            if seen & LOCKED == 0
                && guard
                    .compare_exchange_weak(seen, seen | LOCKED, Acquire, Relaxed)
                    .is_ok()
            {
                return Locked {
                    record: self,
                    last: seen >> BITS,
                    is_blocked: seen & BLOCKED != 0,
                };
            }
            tries = tries.wrapping_add(1);
            if tries.is_multiple_of(SPINS) {
                // Who holds it was sent to sleep by the system.
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// A record that nobody else works on until this is dropped.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    pub(super) record: Record<'a>,
    /// Time of the last counted call.
    last: u64,
    /// Whether the cold words say before when no call can pass.
    is_blocked: bool,
}

impl Locked<'_> {
    /// Time of the last counted call.
    #[inline]
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Says that a call was counted.
    pub(super) const fn counted(&mut self, now: u64) {
        self.last = now;
        self.is_blocked = false;
    }

    /// Says that no call can pass before `until`, as `part` says.
    pub(super) fn block(&mut self, until: u64, part: usize) {
        self.record.cold[0].store(until << 3 | part as u64, Release);
        self.is_blocked = true;
    }

    /// Makes it the record of another key, which has made no call.
    pub(super) fn begin(&mut self, hash: u64, now: u64) {
        let [guarded, _, parts @ ..] = self.record.hot else {
            return;
        };
        guarded.store(0, Release);
        for part in parts {
            part.store(0, Relaxed);
        }
        self.counted(now);
        // Whoever sees the new key sees no flag of the old one.
        self.record.hot[LAST].store(now << BITS | LOCKED, Relaxed);
        guarded.store(hash, Release);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let flag = if self.is_blocked { BLOCKED } else { 0 };
        self.record.hot[LAST].store(self.last << BITS | flag, Release);
    }
}

/// The words of a record that every check reads, besides one for each part of the limit.
pub(super) const HOT_BESIDE_PARTS: usize = 2;

const HASH: usize = 0;
const LAST: usize = 1;
/// The bits below a time.
const BITS: u32 = 2;
const LOCKED: u64 = 1;
const BLOCKED: u64 = 2;
const SPINS: u32 = 128;
