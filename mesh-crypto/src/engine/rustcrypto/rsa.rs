//! RSA with the `rsa` crate; every private operation is blinded.
//!
//! That crate's timing is the subject of RUSTSEC-2023-0071: blinding, and one answer for every failure, are what can
//! be done about it from here.

use rsa::BoxedUint;
use rsa::Oaep;
use rsa::Pss;
use rsa::RsaPrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rsa::pkcs8::EncodePublicKey;
use rsa::traits::PaddingScheme;
use rsa::traits::SignatureScheme;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::random::Asked;
use super::random::SaltThenBlinding;
use super::random::Stream;
use crate::Error;
use crate::Random;
use crate::RsaBits;
use crate::RsaKeyPair;
use crate::RsaPublicKey;
use crate::Secret;
use crate::SystemRandom;
use crate::engine::RsaPrivateOps;
use crate::engine::RsaPublicOps;
use crate::rsa::der;
use crate::rsa::der::Spki;

pub(super) fn generate(bits: RsaBits) -> Result<RsaKeyPair, Error> {
    let mut random = Stream::draw(&SystemRandom::new())?;
    let key = RsaPrivateKey::new(&mut random, bits.bits()).or(Err(Error::Engine {
        action: "generate an rsa key",
    }))?;
    pair(key)
}

pub(super) fn from_pkcs8(der: &Secret) -> Result<RsaKeyPair, Error> {
    let given = der::private_key(der.expose())?;
    let key = RsaPrivateKey::from_pkcs1_der(given).or(Err(der::PRIVATE_REJECTED))?;
    // This checked that the primes make the modulus and the exponents belong together, but not the numbers that follow
    // from them and are given as well; those show when the key is written again.
    let again = key.to_pkcs1_der().or(Err(der::PRIVATE_REJECTED))?;
    if !bool::from(again.as_bytes().ct_eq(given)) {
        return Err(der::PRIVATE_REJECTED);
    }
    pair(key)
}

pub(super) fn from_spki(der: &[u8]) -> Result<RsaPublicKey, Error> {
    let spki = Spki::parse(der)?;
    let number = |bytes| BoxedUint::from_be_slice_vartime(bytes);
    let key = rsa::RsaPublicKey::new(number(spki.modulus), number(spki.exponent))
        .or(Err(der::REJECTED))?;
    let digest = Sha256::digest(der).into();
    Ok(RsaPublicKey::new(
        spki.bits,
        der,
        digest,
        Box::new(Public(key)),
    ))
}

fn pair(key: RsaPrivateKey) -> Result<RsaKeyPair, Error> {
    let der = key
        .to_public_key()
        .to_public_key_der()
        .or(Err(der::REJECTED))?;
    Ok(RsaKeyPair::new(
        from_spki(der.as_bytes())?,
        Box::new(Private(key)),
    ))
}

struct Private(RsaPrivateKey);

impl RsaPrivateOps for Private {
    fn decrypt_oaep(&self, ciphertext: &[u8], label: &[u8]) -> Result<Secret, Error> {
        let mut blinding = Stream::draw(&SystemRandom::new())?;
        Oaep::<Sha256>::new_with_label(label)
            .decrypt(Some(&mut blinding), &self.0, ciphertext)
            .map(Secret::new)
            .or(Err(Error::Open))
    }

    fn sign_pss(&self, message: &[u8], random: &dyn Random) -> Result<Vec<u8>, Error> {
        let mut drawn = SaltThenBlinding::draw(random)?;
        Pss::<Sha256>::new_blinded()
            .sign(Some(&mut drawn), &self.0, &Sha256::digest(message))
            .or(Err(Error::Engine { action: "sign" }))
    }

    fn to_pkcs8(&self) -> Result<Secret, Error> {
        let der = self.0.to_pkcs8_der().or(Err(Error::Engine {
            action: "encode an rsa key",
        }))?;
        Ok(Secret::from_slice(der.as_bytes()))
    }
}

struct Public(rsa::RsaPublicKey);

impl RsaPublicOps for Public {
    fn encrypt_oaep(
        &self,
        plaintext: &[u8],
        label: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, Error> {
        Oaep::<Sha256>::new_with_label(label)
            .encrypt(&mut Asked(random), &self.0, plaintext)
            .map_err(|error| match error {
                rsa::Error::Rng => Error::Random,
                _ => Error::Engine {
                    action: "encrypt to an rsa key",
                },
            })
    }

    fn verify_pss(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        Pss::<Sha256>::new()
            .verify(&self.0, &Sha256::digest(message), signature)
            .or(Err(Error::Signature))
    }
}
