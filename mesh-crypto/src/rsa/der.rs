//! Reads the one DER encoding of an RSA key, alike for every engine, so that no library's habits decide what is a key.
//!
//! # Sources
//!
//! RFC 5280 section 4.1 (`SubjectPublicKeyInfo`), RFC 5208 section 5 (`PrivateKeyInfo`), RFC 8017 appendix A.1
//! (`RSAPublicKey`, `RSAPrivateKey`), RFC 3279 section 2.3.1 (`rsaEncryption` with NULL parameters), X.690 sections
//! 8.3 and 10.1 (DER), FIPS 186-5 section 5.1 (the exponent).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::Error;
use crate::RsaBits;

/// The numbers of a public key, big-endian without leading zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spki<'a> {
    pub(crate) bits: RsaBits,
    pub(crate) modulus: &'a [u8],
    pub(crate) exponent: &'a [u8],
}

impl<'a> Spki<'a> {
    /// Reads `der` if it is the DER encoding of an RSA key with a size and an exponent that are accepted.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Error> {
        let (modulus, exponent) = numbers(der).ok_or(REJECTED)?;
        let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros());
        let bits = modulus
            .len()
            .checked_mul(8)
            .and_then(|bits| bits.checked_sub(usize::try_from(zeros).ok()?))
            .ok_or(REJECTED)?;
        let bits = RsaBits::from_bits(bits)?;
        if !is_odd(modulus) || !is_odd(exponent) || !EXPONENTS.contains(&number(exponent)) {
            return Err(REJECTED);
        }
        Ok(Self {
            bits,
            modulus,
            exponent,
        })
    }
}

fn numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let info = whole(SEQUENCE, der)?;
    let key = whole(BIT_STRING, info.strip_prefix(RSA_ENCRYPTION)?)?;
    // The number of unused bits comes first.
    let key = whole(SEQUENCE, key.strip_prefix(&[0])?)?;
    let (modulus, key) = element(INTEGER, key)?;
    let (exponent, key) = element(INTEGER, key)?;
    key.is_empty()
        .then_some((positive(modulus)?, positive(exponent)?))
}

/// The `RSAPrivateKey` in an unencrypted PKCS#8 `PrivateKeyInfo` of version 0 without attributes. What is in it is for
/// the engine to check, which knows how to without telling by its timing.
pub(crate) fn private_key(pkcs8: &[u8]) -> Result<&[u8], Error> {
    whole(SEQUENCE, pkcs8)
        .and_then(|info| info.strip_prefix(VERSION_0)?.strip_prefix(RSA_ENCRYPTION))
        .and_then(|key| whole(OCTET_STRING, key))
        .ok_or(PRIVATE_REJECTED)
}

/// The content of the element that `der` is, and nothing else.
fn whole(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let (content, rest) = element(tag, der)?;
    rest.is_empty().then_some(content)
}

/// The content of the element at the start of `der`, and what follows it. Only the shortest form of a length is read.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (length, rest) = match rest {
        [length @ 0..=0x7f, rest @ ..] | [0x81, length @ 0x80..=0xff, rest @ ..] => {
            (usize::from(*length), rest)
        }
        [0x82, high @ 1..=0xff, low, rest @ ..] => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The bytes of a positive INTEGER in its shortest form, without the zero that keeps it positive.
fn positive(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] if rest.first() >= Some(&0x80) => Some(rest),
        [1..=0x7f, ..] => Some(integer),
        _ => None,
    }
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte & 1 == 1)
}

/// The value of at most eight bytes; more are out of any range that is asked for.
fn number(bytes: &[u8]) -> u64 {
    if bytes.len() > 8 {
        return u64::MAX;
    }
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

pub(crate) const REJECTED: Error = Error::KeyRejected {
    what: "the rsa public key",
};
pub(crate) const PRIVATE_REJECTED: Error = Error::KeyRejected {
    what: "the PKCS#8 rsa key",
};

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
/// INTEGER 0.
const VERSION_0: &[u8] = &[0x02, 0x01, 0x00];
/// `AlgorithmIdentifier { rsaEncryption, NULL }` (RFC 3279 section 2.3.1).
const RSA_ENCRYPTION: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// Above 2^16 (FIPS 186-5 section 5.1), so that no textbook attack on small exponents applies; at most 33 bits, so
/// that a peer's key cannot make a public operation slow (the limit of both engines).
const EXPONENTS: std::ops::RangeInclusive<u64> = 0x1_0001..=0x1_ffff_ffff;

#[cfg(test)]
mod tests;
