//! How keys are agreed and how records are protected.

use std::fmt;

use mesh_crypto::AeadAlgorithm;

/// What both sides use in one session. On the wire: two bytes, the first for the agreement, the second for the records.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Suite {
    agreement: Agreement,
    cipher: AeadAlgorithm,
    mac: MacCover,
}

/// What is agreed on beside the two RSA secrets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Agreement {
    /// X25519 (RFC 7748).
    X25519,
    /// X25519 and ML-KEM-768 (FIPS 203): what is recorded now stays closed to a quantum computer later.
    X25519MlKem768,
}

/// What the HMAC of a record covers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum MacCover {
    /// All of the record, so that its integrity does not rest on GCM alone.
    Record,
    /// Header and GCM tag: a quarter of the cost of large records. Integrity of the text rests on GCM; the record is
    /// still committed to its keys.
    HeaderAndTag,
}

impl Suite {
    /// What a node prefers: X25519 with ML-KEM-768, AES-256-GCM, and an HMAC over all of the record.
    pub const PREFERRED: Self = Self::new(
        Agreement::X25519MlKem768,
        AeadAlgorithm::Aes256Gcm,
        MacCover::Record,
    );
    /// The preferred one without ML-KEM.
    pub const CLASSIC: Self = Self::new(
        Agreement::X25519,
        AeadAlgorithm::Aes256Gcm,
        MacCover::Record,
    );

    /// A suite of these parts; all combinations exist.
    pub const fn new(agreement: Agreement, cipher: AeadAlgorithm, mac: MacCover) -> Self {
        Self {
            agreement,
            cipher,
            mac,
        }
    }

    /// All twelve.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u16::MAX)
            .filter(|code| code & 0xfeec == 0)
            .filter_map(Self::from_code)
    }

    /// How keys are agreed.
    pub const fn agreement(self) -> Agreement {
        self.agreement
    }

    /// The cipher of records.
    pub const fn cipher(self) -> AeadAlgorithm {
        self.cipher
    }

    /// What the HMAC of a record covers.
    pub const fn mac(self) -> MacCover {
        self.mac
    }

    pub(crate) const fn is_hybrid(self) -> bool {
        matches!(self.agreement, Agreement::X25519MlKem768)
    }

    pub(crate) const fn code(self) -> u16 {
        let agreement = match self.agreement {
            Agreement::X25519 => 0,
            Agreement::X25519MlKem768 => HYBRID,
        };
        let mac = match self.mac {
            MacCover::Record => 0,
            MacCover::HeaderAndTag => HEADER_AND_TAG,
        };
        let cipher = match self.cipher {
            AeadAlgorithm::Aes192Gcm => 2,
            AeadAlgorithm::Aes128Gcm => 3,
            // The only other one; the enumeration may grow in its own crate.
            _ => 1,
        };
        agreement | mac | cipher
    }

    pub(crate) const fn from_code(code: u16) -> Option<Self> {
        let agreement = match code & 0xff00 {
            0 => Agreement::X25519,
            HYBRID => Agreement::X25519MlKem768,
            _ => return None,
        };
        let mac = match code & 0xf0 {
            0 => MacCover::Record,
            HEADER_AND_TAG => MacCover::HeaderAndTag,
            _ => return None,
        };
        let cipher = match code & 0x0f {
            1 => AeadAlgorithm::Aes256Gcm,
            2 => AeadAlgorithm::Aes192Gcm,
            3 => AeadAlgorithm::Aes128Gcm,
            _ => return None,
        };
        Some(Self::new(agreement, cipher, mac))
    }

    /// Whether an offer that lists this code has an ML-KEM key, known or not.
    pub(crate) const fn code_is_hybrid(code: u16) -> bool {
        code & 0xff00 == HYBRID
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agreement = match self.agreement {
            Agreement::X25519 => "x25519",
            Agreement::X25519MlKem768 => "x25519mlkem768",
        };
        let cipher = self.cipher.key_len() * 8;
        let mac = match self.mac {
            MacCover::Record => "hmac",
            MacCover::HeaderAndTag => "hmactag",
        };
        write!(f, "{agreement}-aes{cipher}gcm-{mac}")
    }
}

const HYBRID: u16 = 0x0100;
const HEADER_AND_TAG: u16 = 0x0010;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_of_one_suite() {
        let known: Vec<_> = (0..=u16::MAX).filter_map(Suite::from_code).collect();
        assert_eq!(known.len(), 12);
        assert_eq!(known, Suite::all().collect::<Vec<_>>());
        for suite in known {
            assert_eq!(Suite::from_code(suite.code()), Some(suite));
        }
        assert_eq!(Suite::PREFERRED.code(), 0x0101);
        assert_eq!(Suite::CLASSIC.code(), 0x0001);
        assert_eq!(
            Suite::PREFERRED.to_string(),
            "x25519mlkem768-aes256gcm-hmac"
        );
    }
}
