//! Which of the numbers somebody else chooses were seen: a sliding bitmap.
//!
//! # Sources
//!
//! RFC 6479 (a ring of whole words, so that sliding clears words and shifts nothing), RFC 4303 section 3.4.3.

/// Grants each number once, in any order, as long as it is no further below the highest than the window is wide.
#[derive(Debug)]
pub(crate) struct Window {
    /// One more word than the window needs, because entering a word clears all of it.
    words: Box<[u64]>,
    /// One past the highest number granted.
    next: u64,
}

impl Window {
    /// A window of at least `size` numbers, rounded up to a multiple of 64, from 64 to 65,536.
    pub(crate) fn new(size: u32) -> Self {
        let words = size.clamp(WORD, MAX).div_ceil(WORD) + 1;
        Self {
            words: vec![0; usize::try_from(words).unwrap_or(2)].into_boxed_slice(),
            next: 0,
        }
    }

    /// Whether `number` is granted now, which happens once. `number` must be below `u64::MAX`.
    pub(crate) fn claim(&mut self, number: u64) -> bool {
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
        let count = u64::try_from(self.words.len()).unwrap_or(u64::MAX);
        // The word that holds the highest number so far keeps its bits; every later one starts empty.
        let first = self.next.div_ceil(u64::from(WORD));
        for word in first.max(to.saturating_sub(count - 1))..=to {
            *self.word(word) = 0;
        }
        self.next = number.saturating_add(1);
    }

    fn size(&self) -> u64 {
        u64::try_from(self.words.len())
            .unwrap_or(1)
            .saturating_sub(1)
            * u64::from(WORD)
    }

    fn word(&mut self, word: u64) -> &mut u64 {
        let count = u64::try_from(self.words.len()).unwrap_or(1);
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
            steps in proptest::collection::vec((any::<bool>(), 0_u64..500), 1..400),
        ) {
            let mut window = Window::new(size);
            let width = window.size();
            let mut seen = HashSet::new();
            let mut next = 0_u64;
            for (forward, distance) in steps {
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
