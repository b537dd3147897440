//! The first message: its bytes, and the part of it that is sealed.

use mesh_crypto::Secret;
use mesh_crypto::agreement::MlKem768Key;

use crate::Error;
use crate::Suite;
use crate::UnixTime;
use crate::shares::Shares;
use crate::shares::hybrid_field;
use crate::wire;
use crate::wire::Reader;

/// The first message as it is read; borrowed from its bytes.
pub(crate) struct Init<'a> {
    /// All of it.
    pub(crate) bytes: &'a [u8],
    pub(crate) suite: Suite,
    pub(crate) offer_hash: [u8; 32],
    pub(crate) time: UnixTime,
    pub(crate) random: [u8; 32],
    pub(crate) share: [u8; 32],
    /// ML-KEM: the ciphertext to the offer's key, and the initiator's own key.
    pub(crate) to_offer: Option<&'a [u8]>,
    pub(crate) ek: Option<&'a [u8]>,
    pub(crate) ciphertext: &'a [u8],
    /// Everything before the sealed part.
    pub(crate) clear: &'a [u8],
    pub(crate) sealed: &'a [u8],
}

impl<'a> Init<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::message("first message", wire::KIND_INIT, bytes)?;
        let suite = u16::from_be_bytes(reader.array()?);
        let suite = Suite::from_code(suite).ok_or(Error::Suite)?;
        let offer_hash = reader.array()?;
        let time = UnixTime::from_millis(u64::from_be_bytes(reader.array()?));
        let random = reader.array()?;
        let share = reader.array()?;
        let hybrid = suite.is_hybrid();
        let to_offer = hybrid_field(&mut reader, hybrid, MlKem768Key::CIPHERTEXT_LEN)?;
        let ek = hybrid_field(&mut reader, hybrid, MlKem768Key::EK_LEN)?;
        let ciphertext = reader.field(wire::MAX_RSA)?;
        let clear = reader.so_far();
        let sealed = reader.field(usize::from(u16::MAX))?;
        reader.end()?;
        Ok(Self {
            bytes,
            suite,
            offer_hash,
            time,
            random,
            share,
            to_offer,
            ek,
            ciphertext,
            clear,
            sealed,
        })
    }
}

/// The clear part of a first message, to be followed by the sealed one.
pub(crate) fn clear(
    suite: Suite,
    (offer_hash, time): (&[u8; 32], UnixTime),
    (random, shares): (&[u8; 32], &Shares),
    (to_offer, ciphertext): (&[u8], &[u8]),
) -> Result<Vec<u8>, Error> {
    let mut out = vec![wire::VERSION, wire::KIND_INIT];
    out.extend_from_slice(&suite.code().to_be_bytes());
    out.extend_from_slice(offer_hash);
    out.extend_from_slice(&time.as_millis().to_be_bytes());
    out.extend_from_slice(random);
    out.extend_from_slice(shares.share());
    out.extend_from_slice(to_offer);
    out.extend_from_slice(shares.ek());
    wire::put(&mut out, "the ciphertext", ciphertext)?;
    Ok(out)
}

/// The sealed part of a first message, opened.
pub(crate) struct Inner<'a> {
    pub(crate) name: &'a str,
    pub(crate) spki: &'a [u8],
    pub(crate) attestation: &'a [u8],
    pub(crate) token: &'a [u8],
    /// Everything before the signature.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> Inner<'a> {
    pub(crate) fn parse(inner: &'a Secret) -> Result<Self, Error> {
        let mut reader = Reader::new("sealed part of the first message", inner.expose());
        let name = reader.name()?;
        let spki = reader.field(wire::MAX_SPKI)?;
        let attestation = reader.field(wire::MAX_ATTESTATION)?;
        let token = reader.field(wire::MAX_TOKEN)?;
        let signed = reader.so_far();
        let signature = reader.field(wire::MAX_RSA)?;
        reader.end()?;
        Ok(Self {
            name,
            spki,
            attestation,
            token,
            signed,
            signature,
        })
    }
}
