//! What is kept of one key: a cache line that every check reads, guarded by a bit of its own, and the rings of its windows.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::config::MAX_WINDOWS;

/// The part of a key's record that every check reads; 64 bytes, one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Hot {
    /// Which key it is. Changed only by who makes room in the table, under the lock.
    hash: AtomicU64,
    /// Time of the last counted call, and in the lowest bit whether somebody works on the record.
    last: AtomicU64,
    /// Before when no call can pass, and in the lowest three bits which part says so: read without the lock.
    blocked: AtomicU64,
    /// The bucket's word.
    pub(super) full_at: AtomicU64,
    /// The windows' heads.
    pub(super) heads: [AtomicU64; MAX_WINDOWS],
}

impl Hot {
    pub(super) fn is_of(&self, hash: u64) -> bool {
        self.hash.load(Acquire) == hash
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.load(Acquire)
    }

    /// Time of the last counted call, as far as one can tell without the lock.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Relaxed) >> 1
    }

    /// Before when no call can pass, and which part says so.
    pub(super) fn blocked(&self) -> (u64, usize) {
        let word = self.blocked.load(Acquire);
        (word >> 3, usize::from(word.to_le_bytes()[0] & 7))
    }

    /// Waits until nobody else works on the record. What is done with it takes some tens of nanoseconds.
    pub(super) fn lock(&self) -> Locked<'_> {
        let mut tries = 0_u32;
        loop {
            let seen = self.last.load(Relaxed);
            let is_free = seen & 1 == 0;
            if is_free
                && self
                    .last
                    .compare_exchange_weak(seen, seen | 1, Acquire, Relaxed)
                    .is_ok()
            {
                return Locked {
                    hot: self,
                    last: seen >> 1,
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
    pub(super) hot: &'a Hot,
    /// Time of the last counted call.
    pub(super) last: u64,
}

impl Locked<'_> {
    /// Says that no call can pass before `until`, as `part` says.
    pub(super) fn block(&self, until: u64, part: usize) {
        self.hot.blocked.store(until << 3 | part as u64, Release);
    }

    /// Makes it the record of another key, which has made no call.
    pub(super) fn begin(&mut self, hash: u64, now: u64) {
        self.hot.hash.store(0, Release);
        self.hot.blocked.store(0, Release);
        self.hot.full_at.store(0, Relaxed);
        for head in &self.hot.heads {
            head.store(0, Relaxed);
        }
        self.last = now;
        self.hot.hash.store(hash, Release);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.hot.last.store(self.last << 1, Release);
    }
}

const SPINS: u32 = 128;

const _: () = assert!(size_of::<Hot>() == 64);
