//! First messages that were answered, remembered for as long as their time would let them pass again.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;

use crate::Error;
use crate::UnixTime;

/// Two generations of the initiators' randoms. A message is accepted from one tolerance before its time to one after,
/// so two tolerances after it was answered it can pass no more: a generation is dropped once it is that old.
#[derive(Debug)]
pub(crate) struct ReplayCache {
    generations: Mutex<Generations>,
    span: Duration,
    capacity: usize,
}

#[derive(Debug)]
struct Generations {
    current: HashSet<[u8; 32]>,
    previous: HashSet<[u8; 32]>,
    /// When the current one began; the first insertion sets it.
    since: UnixTime,
}

impl ReplayCache {
    pub(crate) fn new(tolerance: Duration, capacity: usize) -> Self {
        let generations = Generations {
            current: HashSet::new(),
            previous: HashSet::new(),
            since: UnixTime::from_millis(0),
        };
        // One millisecond more, because both ends of the tolerance are accepted.
        let span = tolerance * 2 + Duration::from_millis(1);
        Self {
            generations: Mutex::new(generations),
            span,
            capacity,
        }
    }

    pub(crate) fn contains(&self, random: &[u8; 32]) -> bool {
        let generations = self.generations.lock();
        generations.current.contains(random) || generations.previous.contains(random)
    }

    /// Remembers `random`, unless it is there.
    pub(crate) fn insert(&self, random: [u8; 32], now: UnixTime) -> Result<(), Error> {
        let generations = &mut *self.generations.lock();
        if generations.current.contains(&random) || generations.previous.contains(&random) {
            return Err(Error::Replayed);
        }
        let age = now.since(generations.since);
        if age >= self.span {
            generations.previous = std::mem::take(&mut generations.current);
            generations.since = now;
        }
        if age >= self.span * 2 {
            // Whatever was current stopped growing a span ago.
            generations.previous.clear();
        }
        if generations.current.len() + generations.previous.len() >= self.capacity {
            // Forgetting one would let it be repeated.
            return Err(Error::Busy);
        }
        generations.current.insert(random);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(1_000_000 + secs)
    }

    // threat 24
    #[test]
    fn remembers_for_two_tolerances_and_forgets_after_four() {
        let cache = ReplayCache::new(Duration::from_mins(1), 100);
        cache.insert([0; 32], at(0)).unwrap();
        cache.insert([1; 32], at(119)).unwrap();
        cache.insert([2; 32], at(121)).unwrap();
        assert!(matches!(
            cache.insert([1; 32], at(239)),
            Err(Error::Replayed)
        ));
        assert!(cache.contains(&[1; 32]));
        cache.insert([3; 32], at(243)).unwrap();
        assert!(!cache.contains(&[1; 32]));
        assert!(cache.contains(&[2; 32]));
    }

    #[test]
    fn refuses_more_rather_than_forget() {
        let cache = ReplayCache::new(Duration::from_mins(1), 2);
        cache.insert([1; 32], at(0)).unwrap();
        cache.insert([2; 32], at(0)).unwrap();
        assert!(matches!(cache.insert([3; 32], at(1)), Err(Error::Busy)));
        cache.insert([3; 32], at(130)).unwrap_err();
        cache.insert([3; 32], at(260)).unwrap();
    }

    #[test]
    fn a_clock_that_goes_back_forgets_nothing() {
        let cache = ReplayCache::new(Duration::from_mins(1), 10);
        cache.insert([1; 32], at(1_000)).unwrap();
        cache.insert([2; 32], at(0)).unwrap();
        assert!(cache.contains(&[1; 32]));
    }
}
