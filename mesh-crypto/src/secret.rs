//! Bytes that are wiped when dropped and cannot be printed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Error;
use crate::Random;

/// Secret bytes: wiped on drop, compared in constant time, redacted in `Debug`, without `Display` or `Clone`.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`, which are wiped when this is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Copies `bytes`; the original stays the caller's to wipe.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// Draws `len` fresh bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the source fails.
    pub fn random(len: usize, random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(vec![0; len]);
        random.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes themselves. Do not log, format or keep them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes there are; this much is not secret.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    // threat 20
    #[test]
    fn debug_shows_nothing_of_it() {
        let secret = Secret::from_slice(b"hunter2 hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
    }

    #[test]
    fn equality_is_of_all_bytes_and_length() {
        assert_eq!(Secret::from_slice(b"abc"), Secret::from_slice(b"abc"));
        assert_ne!(Secret::from_slice(b"abc"), Secret::from_slice(b"abd"));
        assert_ne!(Secret::from_slice(b"abc"), Secret::from_slice(b"abcd"));
    }
}
