//! What the files of a key store are called.

use crate::Fingerprint;
use crate::hex;

/// `rsa-<created>-<fingerprint>.pem`, the date in seconds and twenty digits so that names sort by age.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Name {
    pub(super) created: u64,
    pub(super) fingerprint: Fingerprint,
}

impl Name {
    /// The name of the key's file.
    pub(super) fn file(&self) -> String {
        let mut out = format!("rsa-{:020}-", self.created);
        // Writing to a string does not fail.
        hex::write(&mut out, self.fingerprint.as_bytes()).unwrap_or_default();
        out.push_str(".pem");
        out
    }

    /// The name of the file while it is being written.
    pub(super) fn temporary(&self) -> String {
        format!(".{}.new", self.file())
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (created, fingerprint) = name
            .strip_prefix("rsa-")?
            .strip_suffix(".pem")?
            .split_once('-')?;
        let fingerprint: [u8; 32] = hex::decode(fingerprint)?.try_into().ok()?;
        let parsed = Self {
            created: created.parse().ok()?,
            fingerprint: Fingerprint::from_bytes(fingerprint),
        };
        (parsed.created <= LAST_DATE && parsed.file() == name).then_some(parsed)
    }

    /// Whether this is the name of a file that was never finished: ours, exactly.
    pub(super) fn is_temporary(name: &str) -> bool {
        let inner = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(".new"));
        inner.and_then(Self::parse).is_some()
    }
}

/// The end of the year 9999, after which dates have no four-digit year.
pub(super) const LAST_DATE: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_our_names_are_read() {
        let name = Name {
            created: 1_000,
            fingerprint: Fingerprint::from_bytes([0xab; 32]),
        };
        let file = name.file();
        assert_eq!(
            file,
            format!("rsa-00000000000000001000-{}.pem", "ab".repeat(32))
        );
        assert_eq!(Name::parse(&file), Some(name));
        assert!(Name::is_temporary(&name.temporary()));
        assert!(!Name::is_temporary(&file) && Name::parse(&name.temporary()).is_none());
        for other in [
            "README".to_owned(),
            ".rsa-1.pem.new".to_owned(),
            file.to_uppercase(),
            file.replace("rsa-0", "rsa-"),
            file.replace("00000000000000001000", "99999999999999999999"),
            file.replace("00000000000000001000", "00000253402300800000"),
            format!("{file}.pem"),
        ] {
            assert_eq!(Name::parse(&other), None, "{other}");
            assert!(!Name::is_temporary(&format!(".{other}.new")), "{other}");
        }
    }
}
