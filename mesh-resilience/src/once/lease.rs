//! What travels with an attempt: which call it is of, and the memory that it was meant for.

use std::fmt;
use std::str::FromStr;

/// Names a call among those of its caller: 32 bytes, written as 64 digits of lower-case hex.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId([u8; 32]);

impl MessageId {
    /// The id with these bytes: random ones, or a digest of a key that the caller chose.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

impl FromStr for MessageId {
    type Err = BadMessageId;

    fn from_str(text: &str) -> Result<Self, BadMessageId> {
        read_hex(text).map(Self).ok_or(BadMessageId)
    }
}

/// A text that is no message id.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a message id is 64 digits of lower-case hex")]
pub struct BadMessageId;

/// A memory and a moment on its clock, written as `BOOT-STAMP`: 32 digits of lower-case hex and a decimal number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Lease {
    boot: [u8; 16],
    stamp: u64,
}

impl Lease {
    pub(super) const fn new(boot: [u8; 16], stamp: u64) -> Self {
        Self { boot, stamp }
    }

    /// Returns whether both are of the same memory.
    pub fn is_of_same_memory(&self, other: &Self) -> bool {
        self.boot == other.boot
    }

    /// The stamp, if it is of that memory.
    pub(super) fn stamp_of(&self, boot: &[u8; 16]) -> Option<u64> {
        (self.boot == *boot).then_some(self.stamp)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.boot)?;
        write!(f, "-{}", self.stamp)
    }
}

impl FromStr for Lease {
    type Err = BadLease;

    fn from_str(text: &str) -> Result<Self, BadLease> {
        let (boot, stamp) = text.split_once('-').ok_or(BadLease)?;
        let boot = read_hex(boot).ok_or(BadLease)?;
        // `parse` alone would take a leading plus sign, and zeros before the number: two texts for one lease.
        let is_number = stamp.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || (stamp.len() > 1 && stamp.starts_with('0')) {
            return Err(BadLease);
        }
        let stamp = stamp.parse().ok().ok_or(BadLease)?;
        Ok(Self { boot, stamp })
    }
}

/// A text that is no lease.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a lease is 32 digits of lower-case hex, a dash and a number")]
pub struct BadLease;

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_and_an_id_are_read_as_they_are_written_and_no_other_way() {
        let lease = Lease::new([0xa5; 16], 61_000);
        assert_eq!(lease.to_string().parse(), Ok(lease));
        let id = MessageId::new([0x0f; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        let boot = "a5".repeat(16);
        for wrong in ["", "-1", "+1", "01", "1 ", "-", "18446744073709551616"] {
            assert_eq!(
                format!("{boot}-{wrong}").parse::<Lease>(),
                Err(BadLease),
                "{wrong}"
            );
        }
        for wrong in [
            boot.to_uppercase() + "-1",
            boot.clone(),
            format!("{boot}a-1"),
            "é-1".into(),
        ] {
            assert_eq!(wrong.parse::<Lease>(), Err(BadLease), "{wrong}");
        }
        assert_eq!(boot.parse::<MessageId>(), Err(BadMessageId));
    }
}
