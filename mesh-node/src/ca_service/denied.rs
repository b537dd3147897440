//! Who gets no certificate any more: `denied` in the authority's folder, one SPIFFE id, or SHA-256 fingerprint of a
//! certificate, a line.

use std::collections::BTreeSet;

use mesh_auth::spiffe::SpiffeId;

/// Names and certificates that are refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Denied {
    ids: BTreeSet<SpiffeId>,
    /// In hex, lower case, without colons.
    fingerprints: BTreeSet<String>,
}

/// A line that names nobody: then nothing of the file counts, or somebody would be let in who is meant.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line} is neither a SPIFFE id nor a SHA-256 fingerprint (64 hex digits)")]
pub(crate) struct NobodyDenied {
    line: usize,
}

impl Denied {
    /// Reads the file. Empty lines count for nothing, nor do those that begin with `#`.
    ///
    /// # Errors
    ///
    /// [`NobodyDenied`] with the first line that names nobody.
    pub(crate) fn parse(text: &str) -> Result<Self, NobodyDenied> {
        let mut denied = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let hex = line.replace(':', "").to_ascii_lowercase();
            if hex.len() == FINGERPRINT && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                denied.fingerprints.insert(hex);
            } else {
                let nobody = NobodyDenied { line: number + 1 };
                denied.ids.insert(SpiffeId::parse(line).or(Err(nobody))?);
            }
        }
        Ok(denied)
    }

    /// Whether `id`, or whoever shows the certificate of this fingerprint, is refused.
    pub(crate) fn has(&self, id: &SpiffeId, fingerprint: Option<&str>) -> bool {
        self.ids.contains(id) || fingerprint.is_some_and(|shown| self.fingerprints.contains(shown))
    }
}

/// Hex digits of a SHA-256.
const FINGERPRINT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fingerprints_are_found_however_they_are_written() {
        let id = |service: &str| SpiffeId::parse(&format!("spiffe://example.org/{service}"));
        let (shown, colons) = ("ab".repeat(32), ["AB"; 32].join(":"));
        let text = format!("# stolen\n\n spiffe://example.org/a \r\n{colons}\n");
        let denied = Denied::parse(&text).unwrap();
        assert!(denied.has(&id("a").unwrap(), None));
        assert!(!denied.has(&id("b").unwrap(), Some(&"ac".repeat(32))));
        assert!(denied.has(&id("b").unwrap(), Some(&shown)));
        let nobody = |line| Err(NobodyDenied { line });
        for wrong in ["orders", "ab", &"xy".repeat(32)] {
            let read = Denied::parse(&format!("\n{wrong}")).map(|_denied| ());
            assert_eq!(read, nobody(2), "{wrong}");
        }
    }
}
