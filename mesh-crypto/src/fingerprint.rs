//! The name of a public key that cannot be forged.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::hex;

/// SHA-256 of a key's `SubjectPublicKeyInfo`, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A fingerprint from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(hex::decode)
            .ok_or(Error::Fingerprint)?;
        <[u8; 32]>::try_from(bytes)
            .map(Self)
            .or(Err(Error::Fingerprint))
    }
}

const PREFIX: &str = "sha256:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints_and_nothing_else() {
        let print = Fingerprint::from_bytes([0xa5; 32]);
        let text = print.to_string();
        assert_eq!(text, format!("sha256:{}", "a5".repeat(32)));
        assert_eq!(text.parse::<Fingerprint>().unwrap(), print);
        for bad in [
            "",
            "sha256:",
            &"a5".repeat(32),
            &text.to_uppercase(),
            &format!("{text}a5"),
            "sha256:é",
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
