//! Decisions: their ids, and the last ones that somebody may ask about.

mod recent;

use std::fmt;
use std::time::SystemTime;

use mesh_resilience::random::Random;

pub(crate) use self::recent::Recent;
pub(crate) use self::recent::Shadowed;
pub(crate) use self::recent::Told;

/// Names one decision: 26 characters that sort by time. It is a name and no secret.
///
/// # Sources
///
/// ULID specification, "Components" and "Encoding": 48 bits of milliseconds since 1970, 80 random bits, in Crockford's
/// base 32.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct DecisionId([u8; 26]);

impl DecisionId {
    /// An id for a decision at `now`.
    pub(crate) fn new(now: SystemTime, random: &impl Random) -> Self {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = since.as_millis() & ((1 << 48) - 1);
        let noise = (u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())) >> 48;
        let bits = time << 80 | noise;
        let mut text = [0; 26];
        for (place, byte) in (0..26_u32).rev().zip(&mut text) {
            let digit = usize::try_from(bits >> (place * 5) & 31).unwrap_or_default();
            *byte = ALPHABET.get(digit).copied().unwrap_or(b'0');
        }
        Self(text)
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        // The alphabet is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Crockford's base 32: without I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_resilience::random::SplitMix64;

    use super::*;

    fn at(millis: u64, random: &SplitMix64) -> DecisionId {
        DecisionId::new(
            SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            random,
        )
    }

    #[test]
    fn ids_sort_by_time_and_carry_it() {
        let random = SplitMix64::new(7);
        // The example of the specification.
        let id = at(1_469_918_176_385, &random);
        assert!(id.as_str().starts_with("01ARYZ6S41"), "{id}");
        assert!(at(1, &random).as_str() < at(2, &random).as_str());
        let latest = at((1 << 48) - 1, &random);
        assert!(latest.as_str().starts_with("7ZZZZZZZZZ"), "{latest}");
    }

    #[test]
    fn ids_of_one_moment_differ() {
        let random = SplitMix64::new(7);
        let ids: std::collections::HashSet<_> =
            (0..1000).map(|_| at(5, &random).to_string()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 26));
    }
}
