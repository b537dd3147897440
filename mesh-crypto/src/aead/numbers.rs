//! Who grants stream numbers, each once: a counter of our own, or a window over what the peer counts.
//!
//! Compiled with `--cfg loom`, the counter and the lock are loom's, and the tests below try every interleaving.

use std::sync::atomic::Ordering;

use self::sync::AtomicU64;
use self::sync::Mutex;
use crate::Error;
use crate::aead::window::Window;

/// The numbers of a [`SealingKey`](crate::aead::SealingKey) and of all that follow it. It is neither cloned nor set
/// back; keys share it behind an `Arc`.
#[derive(Debug)]
pub(crate) enum Numbers {
    Counted(AtomicU64),
    Claimed(Mutex<Window>),
}

impl Numbers {
    pub(crate) fn counted() -> Self {
        Self::Counted(AtomicU64::new(0))
    }

    pub(crate) fn claimed(window: u32) -> Self {
        Self::Claimed(Mutex::new(Window::new(window)))
    }

    /// The next number of a counter.
    pub(crate) fn next(&self) -> Result<u64, Error> {
        let Self::Counted(next) = self else {
            return Err(Error::Numbering);
        };
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= NUMBER_LIMIT {
            return Err(Error::Exhausted);
        }
        Ok(number)
    }

    /// Takes as little memory as it can until the next claim.
    pub(crate) fn pack(&self) {
        if let Self::Claimed(window) = self {
            window.lock().pack();
        }
    }

    /// Takes `number` out of a window.
    pub(crate) fn claim(&self, number: u64) -> Result<(), Error> {
        let Self::Claimed(window) = self else {
            return Err(Error::Numbering);
        };
        if number >= NUMBER_LIMIT {
            return Err(Error::Exhausted);
        }
        if window.lock().claim(number) {
            Ok(())
        } else {
            Err(Error::Replayed { number })
        }
    }
}

/// AES blocks spent under one key. Threads that pass the limit together overshoot by one message each, far below the
/// distance to where it would matter.
#[derive(Debug)]
pub(crate) struct Spent(AtomicU64);

impl Spent {
    pub(crate) fn new(blocks: u64) -> Self {
        Self(AtomicU64::new(blocks))
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds `blocks` if the limit is not reached yet.
    pub(crate) fn spend(&self, blocks: u64) -> Result<(), Error> {
        if self.blocks() >= BLOCK_LIMIT {
            return Err(Error::Exhausted);
        }
        self.0.fetch_add(blocks, Ordering::Relaxed);
        Ok(())
    }
}

/// 2^34 blocks (256 GiB) leave an attacker an advantage below 2^-60 against one key
/// (draft-irtf-cfrg-aead-limits section 5.1.1); SP 800-38D itself would allow far more with these nonces.
pub(crate) const BLOCK_LIMIT: u64 = 1 << 34;
/// Far above what can be reached, far below wrapping, even when many threads overshoot at once.
const NUMBER_LIMIT: u64 = 1 << 63;

#[cfg(not(loom))]
mod sync {
    pub(super) use std::sync::atomic::AtomicU64;

    pub(super) use parking_lot::Mutex;
}

#[cfg(loom)]
mod sync {
    pub(super) use loom::sync::atomic::AtomicU64;

    /// Loom's lock with the interface of the other one.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Runs `work` on three threads at once and gives what each found.
    fn race<T: Send + 'static>(
        numbers: &Arc<Numbers>,
        work: impl Fn(&Numbers, u64) -> T + Copy + Send + 'static,
    ) -> Vec<T> {
        let threads: Vec<_> = (1..3)
            .map(|thread| {
                let numbers = Arc::clone(numbers);
                thread::spawn(move || work(&numbers, thread))
            })
            .collect();
        let mut found = vec![work(numbers, 0)];
        found.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        found
    }

    // threat 27
    #[test]
    fn no_two_threads_count_the_same_number() {
        loom::model(|| {
            let numbers = Arc::new(Numbers::counted());
            let mut found: Vec<_> = race(&numbers, |numbers, _| {
                [numbers.next().unwrap(), numbers.next().unwrap()]
            })
            .concat();
            found.sort_unstable();
            assert_eq!(found, [0, 1, 2, 3, 4, 5]);
        });
    }

    // threats 24 and 27
    #[test]
    fn no_two_threads_claim_the_same_number() {
        loom::model(|| {
            let numbers = Arc::new(Numbers::claimed(64));
            let found = race(&numbers, |numbers, thread| {
                let far = numbers.claim(1_000 + thread).is_ok();
                (far, numbers.claim(999).is_ok())
            });
            assert!(found.iter().all(|(far, _)| *far));
            assert_eq!(found.iter().filter(|(_, same)| *same).count(), 1);
        });
    }

    // threat 27
    #[test]
    fn a_spent_key_stops_every_thread() {
        loom::model(|| {
            let spent = Arc::new(Spent::new(BLOCK_LIMIT - 1));
            let other = Arc::clone(&spent);
            let thread = thread::spawn(move || other.spend(3).is_ok());
            let mine = spent.spend(3).is_ok();
            assert!(mine | thread.join().unwrap());
            assert!(spent.spend(1).is_err());
            assert!(spent.blocks() <= BLOCK_LIMIT + 5);
        });
    }
}
