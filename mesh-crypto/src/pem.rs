//! PEM as RFC 7468 has it, strictly: one block, standard base64, nothing before it and only line ends after it.

use zeroize::Zeroizing;

use crate::Engine;
use crate::Error;
use crate::RsaPublicKey;
use crate::Secret;

/// A public key as `SubjectPublicKeyInfo` in PEM (`-----BEGIN PUBLIC KEY-----`), as `openssl rsa -pubout` writes it.
pub fn encode_public(key: &RsaPublicKey) -> String {
    String::from_utf8_lossy(encode(PUBLIC_KEY, key.spki_der()).expose()).into_owned()
}

/// Reads a public key as [`encode_public`] writes it.
///
/// # Errors
///
/// [`Error::Pem`] if the text is not that, and what [`RsaPublicKey::from_spki_der`] gives.
pub fn decode_public(engine: &dyn Engine, text: &str) -> Result<RsaPublicKey, Error> {
    RsaPublicKey::from_spki_der(engine, decode(PUBLIC_KEY, text.as_bytes())?.expose())
}

/// Whether the text begins as a block of this kind.
pub(crate) fn is_of_kind(kind: &str, text: &[u8]) -> bool {
    text.starts_with(format!("-----BEGIN {kind}-----").as_bytes())
}

/// `der` as one PEM block with lines of 64 characters.
pub(crate) fn encode(kind: &str, der: &[u8]) -> Secret {
    let mut out = Vec::with_capacity(der.len() * 4 / 3 + der.len() / 48 + 2 * kind.len() + 64);
    out.extend_from_slice(format!("-----BEGIN {kind}-----\n").as_bytes());
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let word = byte(0) << 16 | byte(1) << 8 | byte(2);
            for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
                out.push(if at <= group.len() {
                    letter(word >> shift & 63)
                } else {
                    b'='
                });
            }
        }
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {kind}-----\n").as_bytes());
    Secret::new(out)
}

/// The DER in a PEM block of this kind.
pub(crate) fn decode(kind: &str, text: &[u8]) -> Result<Secret, Error> {
    let malformed = |what| Error::Pem { what };
    let body = text
        .strip_prefix(format!("-----BEGIN {kind}-----").as_bytes())
        .ok_or_else(|| malformed("it does not begin with the expected label"))?;
    let body = body
        .trim_ascii_end()
        .strip_suffix(format!("-----END {kind}-----").as_bytes())
        .ok_or_else(|| malformed("it does not end with the expected label"))?;
    // Full size from the start, so that growing leaves no copy behind.
    let mut letters = Zeroizing::new(Vec::with_capacity(body.len()));
    letters.extend(
        body.iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\n' | b'\r')),
    );
    if !letters.len().is_multiple_of(4) {
        return Err(malformed("its length is not a multiple of four"));
    }
    let mut out = Zeroizing::new(Vec::with_capacity(letters.len() / 4 * 3));
    let groups = letters.len() / 4;
    for (at, group) in letters.chunks_exact(4).enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && at + 1 != groups) {
            return Err(malformed("it is padded where it must not be"));
        }
        let mut word = 0_u32;
        for byte in &group[..4 - padding] {
            word = word << 6
                | value(*byte)
                    .ok_or_else(|| malformed("it holds a character that is not base64"))?;
        }
        word <<= 6 * padding;
        let bytes = word.to_be_bytes();
        if bytes[4 - padding..].iter().any(|byte| *byte != 0) {
            return Err(malformed("it has stray bits before its padding"));
        }
        out.extend_from_slice(&bytes[1..4 - padding]);
    }
    Ok(Secret::from_slice(&out))
}

fn letter(value: u32) -> u8 {
    LETTERS[usize::try_from(value & 63).unwrap_or(0)]
}

fn value(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";
pub(crate) const ENCRYPTED_KEY: &str = "ENCRYPTED PRIVATE KEY";
const PUBLIC_KEY: &str = "PUBLIC KEY";
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_exactly_one_block() {
        let good = "-----BEGIN X-----\nAAEC\n-----END X-----\n";
        assert_eq!(decode("X", good.as_bytes()).unwrap().expose(), [0, 1, 2]);
        for bad in [
            "",
            "-----BEGIN X-----",
            "-----BEGIN Y-----\nAAEC\n-----END Y-----\n",
            " -----BEGIN X-----\nAAEC\n-----END X-----\n",
            "-----BEGIN X-----\nAAEC\n-----END X-----\n-----BEGIN X-----\n",
            "-----BEGIN X-----\nAAE\n-----END X-----\n",
            "-----BEGIN X-----\nAA E\n-----END X-----\n",
            "-----BEGIN X-----\nA===\n-----END X-----\n",
            "-----BEGIN X-----\nAA==AAEC\n-----END X-----\n",
            "-----BEGIN X-----\nAB==\n-----END X-----\n",
            "-----BEGIN X-----\nA=EC\n-----END X-----\n",
        ] {
            assert!(decode("X", bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(der in proptest::collection::vec(any::<u8>(), 0..300)) {
            let back = decode("ANY KIND", encode("ANY KIND", &der).expose()).unwrap();
            prop_assert_eq!(back.expose(), der);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "(-----BEGIN X-----)?[A-Za-z=\n]{0,40}(-----END X-----)?") {
            if let Ok(der) = decode("X", text.as_bytes()) {
                prop_assert_eq!(decode("X", encode("X", der.expose()).expose()).unwrap(), der);
            }
        }
    }
}
