//! The header: who, to whom, under which secret, and the signature over all of it.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use zeroize::Zeroizing;

use super::Parties;
use crate::AeadAlgorithm;
use crate::Engine;
use crate::Error;
use crate::Fingerprint;
use crate::Prk;
use crate::RsaBits;
use crate::Secret;
use crate::aead::AeadKey;

/// A whole header, cut into its fields.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) parties: Parties,
    /// The secret under OAEP.
    pub(super) wrapped: &'a [u8],
    pub(super) commitment: &'a [u8],
    pub(super) signature: &'a [u8],
    /// Everything before the commitment, from which the keys are derived.
    pub(super) derived_from: &'a [u8],
    /// Everything before the signature, which it covers.
    pub(super) signed: &'a [u8],
    /// How long the header is.
    pub(super) len: usize,
}

impl<'a> Header<'a> {
    /// The header that `bytes` start with; `None` if they may be the start of one.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<Self>, Error> {
        let Some(parties) = parties(bytes)? else {
            return Ok(None);
        };
        let rest = bytes.get(PARTIES_END..).unwrap_or_default();
        let Some((wrapped, rest)) = field(rest)? else {
            return Ok(None);
        };
        let derived_from = before(bytes, rest);
        let Some((commitment, rest)) = rest.split_at_checked(COMMITMENT_LEN) else {
            return Ok(None);
        };
        let signed = before(bytes, rest);
        let Some((signature, rest)) = field(rest)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            parties,
            wrapped,
            commitment,
            signature,
            derived_from,
            signed,
            len: before(bytes, rest).len(),
        }))
    }
}

/// The parties in the start of a header; `None` if it may be the start of one and is too short.
pub(super) fn parties(bytes: &[u8]) -> Result<Option<Parties>, Error> {
    match bytes.iter().zip(START).position(|(is, want)| *is != want) {
        None => {}
        Some(at) => {
            return Err(Error::Envelope {
                what: if at < MAGIC_LEN {
                    "does not begin as one"
                } else {
                    "is of a version or suite that is not known here"
                },
            });
        }
    }
    let prints = || {
        let (sender, rest) = bytes.get(START.len()..)?.split_first_chunk()?;
        let (recipient, _) = rest.split_first_chunk()?;
        Some(Parties {
            sender: Fingerprint::from_bytes(*sender),
            recipient: Fingerprint::from_bytes(*recipient),
        })
    };
    Ok(prints())
}

type FieldAndRest<'a> = (&'a [u8], &'a [u8]);

/// The field that `bytes` start with, behind its length, and what follows; `None` if it has not all arrived.
fn field(bytes: &[u8]) -> Result<Option<FieldAndRest<'_>>, Error> {
    let Some((len, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*len));
    if SIZES.iter().any(|size| size.modulus_len() == len) {
        Ok(rest.split_at_checked(len))
    } else {
        Err(Error::Envelope {
            what: "holds a field that is as long as no accepted rsa key",
        })
    }
}

/// What of `all` comes before `rest`, its end.
fn before<'a>(all: &'a [u8], rest: &[u8]) -> &'a [u8] {
    let len = all.len().saturating_sub(rest.len());
    all.get(..len).unwrap_or_default()
}

/// The header up to the commitment.
pub(super) fn begin(parties: Parties, wrapped: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(MAX_LEN);
    out.extend_from_slice(&START);
    out.extend_from_slice(parties.sender.as_bytes());
    out.extend_from_slice(parties.recipient.as_bytes());
    put(&mut out, wrapped)?;
    Ok(out)
}

/// Appends `field` with its length in two bytes.
pub(super) fn put(out: &mut Vec<u8>, field: &[u8]) -> Result<(), Error> {
    let len = u16::try_from(field.len()).or(Err(Error::Engine {
        action: "keep to the length of its rsa key",
    }))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(field);
    Ok(())
}

/// What the sender signs: the associated data, then the header up to the signature.
pub(super) fn to_sign(engine: &dyn Engine, aad: &[u8], signed: &[u8]) -> Vec<u8> {
    [SIGNATURE, &engine.sha256(&[aad]), signed].concat()
}

/// What comes of the secret.
pub(super) struct Keys {
    pub(super) key: AeadKey,
    pub(super) iv: [u8; AeadKey::IV_LEN],
    pub(super) commitment: [u8; COMMITMENT_LEN],
}

impl Keys {
    /// The keys of the envelope whose header begins with `derived_from`.
    pub(super) fn derive(
        engine: &dyn Engine,
        secret: &Secret,
        aad: &[u8],
        derived_from: &[u8],
    ) -> Result<Self, Error> {
        let salt = engine.sha256(&[HEADER, &engine.sha256(&[aad]), derived_from]);
        let prk = Prk::extract(engine, &salt, &[secret.expose()]);
        let mut out = Zeroizing::new([0; KEY_LEN + AeadKey::IV_LEN]);
        prk.expand(&[KEYS], out.as_mut_slice())?;
        let (key, rest) = out.split_at(KEY_LEN);
        let mut iv = [0; AeadKey::IV_LEN];
        iv.copy_from_slice(rest);
        let mut commitment = [0; COMMITMENT_LEN];
        prk.expand(&[COMMITMENT], &mut commitment)?;
        Ok(Self {
            key: engine.aead_key(AeadAlgorithm::Aes256Gcm, key)?,
            iv,
            commitment,
        })
    }
}

/// Magic, version 1, suite 1.
const START: [u8; MAGIC_LEN + 2] = *b"mesh-env\x01\x01";
const MAGIC_LEN: usize = 8;
/// Where the fingerprints end.
pub(super) const PARTIES_END: usize = START.len() + 2 * 32;
/// One whole output of HMAC-SHA256: 128 bits against finding two secrets for one envelope.
pub(super) const COMMITMENT_LEN: usize = 32;
/// Bytes of the secret under OAEP.
pub(super) const SECRET_LEN: usize = 32;
const KEY_LEN: usize = AeadAlgorithm::Aes256Gcm.key_len();
/// The longest header: two RSA-4096 keys.
pub(super) const MAX_LEN: usize = PARTIES_END + 2 * (2 + 512) + COMMITMENT_LEN;
const SIZES: [RsaBits; 3] = [RsaBits::B2048, RsaBits::B3072, RsaBits::B4096];

/// The OAEP label of the secret.
pub(super) const SECRET: &[u8] = b"mesh-envelope v1 secret\0";
const HEADER: &[u8] = b"mesh-envelope v1 header\0";
const KEYS: &[u8] = b"mesh-envelope v1 keys\0";
const COMMITMENT: &[u8] = b"mesh-envelope v1 commitment\0";
const SIGNATURE: &[u8] = b"mesh-envelope v1 signature\0";
