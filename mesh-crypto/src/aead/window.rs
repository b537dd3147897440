//! Which of the numbers somebody else chooses were seen: a sliding bitmap.
//!
//! # Sources
//!
//! RFC 6479 (a ring of whole words, so that sliding clears words and shifts nothing), RFC 4303 section 3.4.3.

/// Grants each number once, in any order, as long as it is no further below the highest than the window is wide.
#[derive(Debug)]
pub(crate) struct Window {
    /// One more word than the window needs, because entering a word clears all of it. None at all while it is packed:
    /// every number in the window was granted.
    words: Box<[u64]>,
    count: u32,
    /// One past the highest number granted.
    next: u64,
}

impl Window {
    /// A window of at least `size` numbers, rounded up to a multiple of 64, from 64 to 65,536.
    pub(crate) fn new(size: u32) -> Self {
        Self {
            // Nothing is below zero.
            words: Box::default(),
            count: size.clamp(WORD, MAX).div_ceil(WORD) + 1,
            next: 0,
        }
    }

    /// Takes next to no memory until the next claim, if there are no gaps.
    pub(crate) fn pack(&mut self) {
        let oldest = self.next.saturating_sub(self.size());
        if !self.words.is_empty() && (oldest..self.next).all(|number| self.is_granted(number)) {
            self.words = Box::default();
        }
    }

    fn unpack(&mut self) {
        self.words = vec![0; usize::try_from(self.count).unwrap_or(2)].into_boxed_slice();
        for number in self.next.saturating_sub(self.size())..self.next {
            *self.word(number / u64::from(WORD)) |= 1 << (number % u64::from(WORD));
        }
    }

    fn is_granted(&mut self, number: u64) -> bool {
        *self.word(number / u64::from(WORD)) & (1 << (number % u64::from(WORD))) != 0
    }

    /// Whether `number` is granted now, which happens once. `number` must be below `u64::MAX`.
    pub(crate) fn claim(&mut self, number: u64) -> bool {
        if self.words.is_empty() {
            self.unpack();
        }
        if number >= self.next {
            self.slide_to(number);
        } else if self.next - number > self.size() {
            return false;
        }
        let bit = 1 << (number % u64::from(WORD));
        let word = self.word(number / u64::from(WORD));
        let is_fresh = *word & bit == 0;
        *word |= bit;
        is_fresh
    }

    fn slide_to(&mut self, number: u64) {
        let to = number / u64::from(WORD);
        let count = u64::from(self.count);
        // The word that holds the highest number so far keeps its bits; every later one starts empty.
        let first = self.next.div_ceil(u64::from(WORD));
        for word in first.max(to.saturating_sub(count - 1))..=to {
            *self.word(word) = 0;
        }
        self.next = number.saturating_add(1);
    }

    fn size(&self) -> u64 {
        u64::from(self.count.saturating_sub(1)) * u64::from(WORD)
    }

    fn word(&mut self, word: u64) -> &mut u64 {
        let count = u64::from(self.count);
        let at = usize::try_from(word % count).unwrap_or(0);
        &mut self.words[at]
    }
}

const WORD: u32 = u64::BITS;
/// 8 KiB of bitmap; a wider one would only cost memory.
const MAX: u32 = 65_536;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grants_the_whole_window_below_the_highest_and_nothing_older() {
        let mut window = Window::new(128);
        assert!(window.claim(1_000));
        assert!(window.claim(1_001 - 128));
        assert!(!window.claim(1_000 - 128));
        assert!(!window.claim(1_000));
    }

    #[test]
    fn a_window_without_gaps_takes_no_memory_and_forgets_nothing() {
        let mut window = Window::new(128);
        window.pack();
        assert!(window.claim(0) && window.claim(2));
        window.pack();
        assert!(!window.words.is_empty(), "1 is still free");
        for number in (1..500).filter(|number| *number != 2) {
            assert!(window.claim(number));
        }
        window.pack();
        assert!(window.words.is_empty());
        assert!(!window.claim(499) && !window.claim(372) && !window.claim(3));
        assert!(window.claim(500));
    }

    #[test]
    fn a_leap_to_the_far_end_forgets_everything_below() {
        let mut window = Window::new(64);
        assert!(window.claim(5));
        assert!(window.claim(u64::MAX - 1));
        assert!(!window.claim(5));
        assert!(window.claim(u64::MAX - 2));
    }

    proptest! {
        // threat 24: the window against a set that remembers everything.
        #[test]
        fn behaves_as_a_set_with_a_lower_edge(
            size in 1_u32..400,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..500, 0_u8..3), 1..400),
            spread in prop::sample::select(vec![2_u64, 20, 500]),
        ) {
            let mut window = Window::new(size);
            let width = window.size();
            let mut seen = HashSet::new();
            let mut next = 0_u64;
            for (forward, distance, pack) in steps {
                if pack == 0 {
                    window.pack();
                }
                let distance = distance % spread;
                let number = if forward { next + distance } else { next.saturating_sub(distance) };
                let expected = next.saturating_sub(number) <= width && !seen.contains(&number);
                prop_assert_eq!(window.claim(number), expected, "number {} next {}", number, next);
                if expected {
                    seen.insert(number);
                    next = next.max(number + 1);
                }
            }
        }
    }
}
