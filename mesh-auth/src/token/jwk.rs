//! Public keys of issuers (JWK sets), each bound to the one algorithm that it verifies.
//!
//! # Sources
//! - RFC 7517 (JWK), sections 4 and 5; RFC 7518 (JWA), sections 3.3, 3.4, 6.2 and 6.3; RFC 8037 (Ed25519); RFC 9864
//!   (the name `Ed25519` of what RFC 8037 calls `EdDSA`).

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::json::{self, Object};
use super::remember::Fingerprint;
use crate::caller::ClaimValue;

/// Largest JWK set that is looked at, in bytes.
pub const MAX_SET_BYTES: usize = 256 * 1024;

/// Most entries of a JWK set, used or not.
pub const MAX_SET_KEYS: usize = 64;

/// What a key of an issuer can verify. The key says it, never the token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 to 8192 bits.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl KeyAlgorithm {
    /// Whether a token that is signed with this says so in its header.
    fn is_named(self, alg: &str) -> bool {
        match self {
            Self::Rs256 => alg == "RS256",
            Self::Es256 => alg == "ES256",
            Self::EdDsa => alg == "EdDSA" || alg == "Ed25519",
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        })
    }
}

/// A public key, parsed once.
pub(super) struct Key {
    algorithm: KeyAlgorithm,
    public: ParsedPublicKey,
    /// Of algorithm and key, without the name.
    digest: Fingerprint,
}

impl Key {
    pub(super) fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// Whether a token may say `alg` when this key signed it.
    pub(super) fn signs_as(&self, alg: &str) -> bool {
        self.algorithm.is_named(alg)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.public.verify_sig(message, signature).is_ok()
    }

    pub(super) fn digest(&self) -> &Fingerprint {
        &self.digest
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The public keys of one issuer, by `kid`.
///
/// Left out of it are entries that can't be meant for us: without `kid`, of an unknown `kty`, for encryption, or for an
/// algorithm other than RS256, ES256 and `EdDSA`. [`KeySet::left_out`] tells which. The whole set is refused where an
/// entry holds a symmetric or private key (it is public by now, and so is worthless) and where two have one name.
#[derive(Debug)]
pub struct KeySet {
    keys: BTreeMap<Box<str>, Key>,
    left_out: Vec<LeftOut>,
    digest: Fingerprint,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 section 5).
    ///
    /// # Errors
    /// [`KeySetError`], also when no key is left that we can use.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        if json.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLarge { bytes: json.len() });
        }
        let set = json::object(json).map_err(KeySetError::Json)?;
        let Some(ClaimValue::List(entries)) = set.get("keys") else {
            return Err(KeySetError::NoList);
        };
        if entries.len() > MAX_SET_KEYS {
            return Err(KeySetError::TooMany {
                keys: entries.len(),
            });
        }
        let (mut keys, mut left_out) = (BTreeMap::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let ClaimValue::Map(entry) = entry else {
                return Err(KeySetError::Entry { index });
            };
            if let Some(member) = secret_member(entry) {
                return Err(KeySetError::Secret { index, member });
            }
            match read_key(entry) {
                Ok((kid, key)) => {
                    if keys.insert(Box::from(kid), key).is_some() {
                        return Err(KeySetError::DuplicateKid { index });
                    }
                }
                Err(why) => left_out.push(LeftOut { index, why }),
            }
        }
        Self::of(keys, left_out)
    }

    fn of(keys: BTreeMap<Box<str>, Key>, left_out: Vec<LeftOut>) -> Result<Self, KeySetError> {
        if keys.is_empty() {
            return Err(KeySetError::Empty {
                left_out: left_out.len(),
            });
        }
        let mut digest = Sha256::new();
        for (kid, key) in &keys {
            digest.update(kid.len().to_le_bytes());
            digest.update(kid.as_bytes());
            digest.update(key.digest);
        }
        let digest = digest.finalize().into();
        Ok(Self {
            keys,
            left_out,
            digest,
        })
    }

    /// Number of keys that can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a set without a usable key is refused.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Names and algorithms of the keys that can be used.
    pub fn keys(&self) -> impl Iterator<Item = (&str, KeyAlgorithm)> {
        self.keys.iter().map(|(kid, key)| (&**kid, key.algorithm))
    }

    /// The entries that are not used, and why.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    pub(super) fn key(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    pub(super) fn digests(&self) -> impl Iterator<Item = &Fingerprint> {
        self.keys.values().map(Key::digest)
    }

    /// Whether both hold the same keys under the same names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// An entry of a JWK set that is not used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its place in the set, from 0.
    pub index: usize,
    /// Why it is not used.
    pub why: &'static str,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} {}", self.index, self.why)
    }
}

/// Why a JWK set was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// The set is too long to look at.
    #[error("a key set of {bytes} bytes is larger than the limit of {MAX_SET_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The set is not JSON as it should be.
    #[error("the key set is not one JSON object with each name once")]
    Json(#[source] serde_json::Error),
    /// There is no list of keys.
    #[error("the key set has no list \"keys\"")]
    NoList,
    /// The set has too many entries.
    #[error("a key set of {keys} keys is larger than the limit of {MAX_SET_KEYS}")]
    TooMany {
        /// How many.
        keys: usize,
    },
    /// An entry is not an object.
    #[error("key {index} of the set is not an object")]
    Entry {
        /// Its place, from 0.
        index: usize,
    },
    /// An entry holds what nobody but its owner may know.
    #[error(
        "key {index} of the set shows \"{member}\", which is secret; its owner must replace that key"
    )]
    Secret {
        /// Its place, from 0.
        index: usize,
        /// The secret member.
        member: &'static str,
    },
    /// Two keys have the same name, so that a name means neither.
    #[error("key {index} of the set has the kid of another")]
    DuplicateKid {
        /// The place of the second, from 0.
        index: usize,
    },
    /// No entry can be used.
    #[error(
        "the key set has no RS256, ES256 or EdDSA key with a kid; {left_out} of other kinds were left out"
    )]
    Empty {
        /// How many entries were left out.
        left_out: usize,
    },
}

/// A member that only a private or symmetric key has (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1).
fn secret_member(entry: &Object) -> Option<&'static str> {
    ["d", "k", "p", "q", "dp", "dq", "qi", "oth"]
        .into_iter()
        .find(|member| entry.contains_key(*member))
}

fn read_key(entry: &Object) -> Result<(&str, Key), &'static str> {
    let text = |name: &str| match entry.get(name) {
        Some(ClaimValue::Text(text)) => Some(&**text),
        _ => None,
    };
    let bytes = |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let kid = text("kid").ok_or("has no kid")?;
    if kid.is_empty() || kid.len() > MAX_KID_BYTES {
        return Err("has an empty kid, or one longer than 256 bytes");
    }
    if entry.contains_key("use") && text("use") != Some("sig") {
        return Err("is not for signatures (use)");
    }
    if let Some(allowed) = entry.get("key_ops") {
        let is_for_us = matches!(allowed, ClaimValue::List(all) if all.contains(&"verify".into()));
        if !is_for_us {
            return Err("is not for signatures (key_ops)");
        }
    }
    let algorithm = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => KeyAlgorithm::Rs256,
        (Some("EC"), Some("P-256")) => KeyAlgorithm::Es256,
        (Some("OKP"), Some("Ed25519")) => KeyAlgorithm::EdDsa,
        _ => return Err("is neither RSA, P-256 nor Ed25519"),
    };
    if entry.contains_key("alg") && !text("alg").is_some_and(|alg| algorithm.is_named(alg)) {
        return Err("is for an algorithm other than RS256, ES256 and EdDSA");
    }
    let (encoded, public) = match algorithm {
        KeyAlgorithm::Rs256 => {
            let (n, e) = bytes("n").zip(bytes("e")).ok_or(INCOMPLETE)?;
            rsa_key(&n, &e)?
        }
        KeyAlgorithm::Es256 => {
            let (x, y) = bytes("x").zip(bytes("y")).ok_or(INCOMPLETE)?;
            if x.len() != P256_BYTES || y.len() != P256_BYTES {
                return Err(INCOMPLETE);
            }
            // SEC 1 section 2.3.3: an uncompressed point. Parsing it checks that it lies on the curve.
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
            (point, public.map_err(|_rejected| INCOMPLETE)?)
        }
        KeyAlgorithm::EdDsa => {
            let x = bytes("x").ok_or(INCOMPLETE)?;
            let public = ParsedPublicKey::new(&ED25519, &x);
            (x, public.map_err(|_rejected| INCOMPLETE)?)
        }
    };
    let digest = Sha256::new()
        .chain_update([algorithm as u8])
        .chain_update(encoded)
        .finalize()
        .into();
    let key = Key {
        algorithm,
        public,
        digest,
    };
    Ok((kid, key))
}

fn rsa_key(n: &[u8], e: &[u8]) -> Result<(Vec<u8>, ParsedPublicKey), &'static str> {
    let leading = match n {
        [0, ..] | [] => return Err(INCOMPLETE),
        [first, ..] => first.leading_zeros(),
    };
    let bits = n.len().saturating_mul(8) - usize::try_from(leading).unwrap_or(0);
    if bits < MIN_RSA_BITS {
        return Err("is an RSA key of less than 2048 bits");
    }
    if bits > MAX_RSA_BITS {
        return Err("is an RSA key of more than 8192 bits");
    }
    // With an exponent of 1 whatever is padded rightly is a signature; a long one only takes time.
    let is_exponent = match e {
        [0, ..] | [] | [1] => false,
        [.., last] => last % 2 == 1 && e.len() <= MAX_EXPONENT_BYTES,
    };
    if !is_exponent || n.last().is_none_or(|last| last % 2 == 0) {
        return Err(INCOMPLETE);
    }
    let public = RsaPublicKeyComponents { n, e }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map_err(|_rejected| INCOMPLETE)?;
    // The length of n first, so that no two pairs run together to the same bytes.
    let encoded = [&n.len().to_le_bytes(), n, e].concat();
    Ok((encoded, public))
}

const INCOMPLETE: &str = "lacks a part, or is not a key of its kind";
const MAX_KID_BYTES: usize = 256;
const P256_BYTES: usize = 32;
/// RFC 7518 section 3.3.
const MIN_RSA_BITS: usize = 2048;
/// 65537 has three; nobody uses more than 32 bits.
const MAX_EXPONENT_BYTES: usize = 4;
/// Each verification of a longer one takes more than 0.2 ms.
const MAX_RSA_BITS: usize = 8192;

#[cfg(test)]
mod tests;
