//! How long a key opens after a newer one took its place; pure in the time.

use std::time::Duration;

use crate::Fingerprint;
use crate::RsaBits;
use crate::RsaKeyPair;

/// One key of the store, without its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Which key it is.
    pub fingerprint: Fingerprint,
    /// Its size.
    pub bits: RsaBits,
    /// When it was made, in seconds since 1970 (UTC).
    pub created: u64,
    /// When the next newer key was made, in seconds since 1970 (UTC); `None` for the newest.
    pub replaced: Option<u64>,
}

impl KeyInfo {
    /// What the key is good for at `now` (seconds since 1970) where a key opens for `overlap` after it was replaced.
    pub fn state(&self, overlap: Duration, now: u64) -> KeyState {
        state(self.replaced, overlap, now)
    }
}

/// What a key is good for.
///
/// ```text
/// made ──▶ Current ──a newer key──▶ Overlap ──the overlap has passed──▶ Over ──retire──▶ gone
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KeyState {
    /// The newest: it signs, and peers encrypt to it.
    Current,
    /// Replaced, and still good to open what was encrypted to it.
    Overlap {
        /// Until when, in seconds since 1970 (UTC).
        until: u64,
    },
    /// Of no more use; [`retire`](super::KeyStore::retire) deletes it.
    Over {
        /// Since when, in seconds since 1970 (UTC).
        since: u64,
    },
}

/// The keys of a node: one that it is known by, and those that it was known by a short while ago.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeySet {
    /// The newest.
    pub current: RsaKeyPair,
    /// Those within the overlap, newest first.
    pub previous: Vec<PreviousKey>,
}

/// A key that was replaced and still opens.
#[derive(Debug)]
#[non_exhaustive]
pub struct PreviousKey {
    /// The key.
    pub key: RsaKeyPair,
    /// Until when it opens, in seconds since 1970 (UTC).
    pub until: u64,
}

pub(super) fn state(replaced: Option<u64>, overlap: Duration, now: u64) -> KeyState {
    let Some(replaced) = replaced else {
        return KeyState::Current;
    };
    // To the next whole second: a key never ends early.
    let overlap = overlap
        .as_secs()
        .saturating_add(u64::from(overlap.subsec_nanos() > 0));
    let end = replaced.saturating_add(overlap);
    if now < end {
        KeyState::Overlap { until: end }
    } else {
        KeyState::Over { since: end }
    }
}

/// The date of a key made at `now` that must be newer than one of `newest`: a clock that was set back does not make the
/// new key the older one.
pub(super) fn date_after(newest: Option<u64>, now: u64) -> u64 {
    newest.map_or(now, |newest| now.max(newest.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_opens_until_the_overlap_has_passed() {
        let hour = Duration::from_hours(1);
        assert_eq!(state(None, hour, u64::MAX), KeyState::Current);
        let until = 1_000 + 3_600;
        for now in [0, 999, 1_000, until - 1] {
            assert_eq!(state(Some(1_000), hour, now), KeyState::Overlap { until });
        }
        assert_eq!(
            state(Some(1_000), hour, until),
            KeyState::Over { since: until }
        );
        assert_eq!(
            state(Some(5), Duration::from_millis(1), 5),
            KeyState::Overlap { until: 6 }
        );
        assert_eq!(
            state(Some(5), Duration::ZERO, 5),
            KeyState::Over { since: 5 }
        );
    }

    proptest! {
        #[test]
        fn a_key_that_is_over_stays_over(replaced in any::<u64>(), overlap in any::<u64>(), now in any::<u64>(), later in any::<u64>()) {
            let at = |now| state(Some(replaced), Duration::from_secs(overlap), now);
            if matches!(at(now), KeyState::Over { .. }) && later >= now {
                prop_assert_eq!(at(later), at(now));
            }
        }

        #[test]
        fn a_new_date_is_the_newest(newest in 0..u64::MAX, now in any::<u64>()) {
            prop_assert!(date_after(Some(newest), now) > newest && date_after(Some(newest), now) >= now);
            prop_assert_eq!(date_after(None, now), now);
        }
    }
}
