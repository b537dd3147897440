//! `RustCrypto` and dalek: pure Rust, no C compiler needed, slower, and all of its randomness can be given.

mod random;
mod rsa;

use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::KeyInit;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::consts::U16;
use aes_gcm::aes::Aes128;
use aes_gcm::aes::Aes192;
use aes_gcm::aes::Aes256;
use hmac::Hmac;
use hmac::Mac as _;
use ml_kem::DecapsulationKey768;
use ml_kem::EncapsulationKey768;
use ml_kem::kem::Decapsulate;
use ml_kem::kem::KeyExport;
use sha2::Digest;
use sha2::Sha256;
use x25519_dalek::PublicKey;
use x25519_dalek::StaticSecret;
use zeroize::Zeroize;
use zeroize::Zeroizing;

use crate::AeadAlgorithm;
use crate::Engine;
use crate::Error;
use crate::Random;
use crate::RsaBits;
use crate::RsaKeyPair;
use crate::RsaPublicKey;
use crate::Secret;
use crate::aead::AeadKey;
use crate::agreement::MlKem768Key;
use crate::agreement::X25519Key;
use crate::engine::AeadOps;
use crate::engine::AgreementOps;
use crate::engine::KemOps;
use crate::engine::MacOps;
use crate::engine::NONCE_LEN;
use crate::engine::TAG_LEN;
use crate::mac::MacKey;

#[derive(Debug)]
pub(super) struct RustCrypto;

impl Engine for RustCrypto {
    fn name(&self) -> &'static str {
        "rustcrypto"
    }

    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn mac_key(&self, key: &[u8]) -> MacKey {
        // A key is filled up to a block, or hashed first where it is longer (RFC 2104 section 2).
        let mut block = Zeroizing::new([0; BLOCK_LEN]);
        match block.get_mut(..key.len()) {
            Some(start) => start.copy_from_slice(key),
            None => block[..32].copy_from_slice(&self.sha256(&[key])),
        }
        MacKey::new(Box::new(Mac(Hmac::new((&*block).into()))))
    }

    fn aead_key(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<AeadKey, Error> {
        let ops = match algorithm {
            AeadAlgorithm::Aes128Gcm => aead::<Aes128>(key),
            AeadAlgorithm::Aes192Gcm => aead::<Aes192>(key),
            AeadAlgorithm::Aes256Gcm => aead::<Aes256>(key),
        };
        let ops = ops.ok_or(Error::KeyLength {
            expected: algorithm.key_len(),
            got: key.len(),
        })?;
        Ok(AeadKey::new(algorithm, ops))
    }

    fn x25519_key(&self, random: &dyn Random) -> Result<X25519Key, Error> {
        let mut scalar = Zeroizing::new([0; 32]);
        random.fill(scalar.as_mut_slice())?;
        let key = StaticSecret::from(*scalar);
        Ok(X25519Key::new(
            PublicKey::from(&key).to_bytes(),
            Box::new(Agreement(key)),
        ))
    }

    fn ml_kem_768_key(&self, random: &dyn Random) -> Result<MlKem768Key, Error> {
        let mut seed = Zeroizing::new([0; 64]);
        random.fill(seed.as_mut_slice())?;
        let key = Box::new(Kem(DecapsulationKey768::from_seed((*seed).into())));
        let ek = key.0.encapsulation_key().to_bytes();
        Ok(MlKem768Key::new(Box::new(ek.into()), key))
    }

    fn ml_kem_768_encapsulate(
        &self,
        key: &[u8],
        random: &dyn Random,
    ) -> Result<(Vec<u8>, Secret), Error> {
        let key: &[u8; MlKem768Key::EK_LEN] = key.try_into().or(Err(Error::Share))?;
        let key = EncapsulationKey768::new(key.into()).or(Err(Error::Share))?;
        let mut message = Zeroizing::new([0; 32]);
        random.fill(message.as_mut_slice())?;
        let (ciphertext, mut shared) = key.encapsulate_deterministic((&*message).into());
        let secret = Secret::from_slice(&shared);
        shared.zeroize();
        Ok((ciphertext.to_vec(), secret))
    }

    fn generate_rsa(&self, bits: RsaBits) -> Result<RsaKeyPair, Error> {
        rsa::generate(bits)
    }

    fn rsa_from_pkcs8(&self, der: &Secret) -> Result<RsaKeyPair, Error> {
        rsa::from_pkcs8(der)
    }

    fn rsa_from_spki(&self, der: &[u8]) -> Result<RsaPublicKey, Error> {
        rsa::from_spki(der)
    }
}

struct Mac(Hmac<Sha256>);

impl MacOps for Mac {
    fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

struct Aead<C>(AesGcm<C, U12>);

fn aead<C>(key: &[u8]) -> Option<Box<dyn AeadOps>>
where
    AesGcm<C, U12>: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + Send + Sync,
    C: 'static,
{
    let key = AesGcm::<C, U12>::new_from_slice(key).ok()?;
    Some(Box::new(Aead(key)))
}

impl<C> AeadOps for Aead<C>
where
    AesGcm<C, U12>: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync,
{
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Error> {
        match self
            .0
            .encrypt_inout_detached(&nonce.into(), aad, in_out.into())
        {
            Ok(tag) => Ok(tag.into()),
            Err(aes_gcm::Error) => Err(Error::Engine { action: "seal" }),
        }
    }

    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Error> {
        let tag: &[u8; TAG_LEN] = tag.try_into().or(Err(Error::Open))?;
        self.0
            .decrypt_inout_detached(&nonce.into(), aad, in_out.into(), tag.into())
            .or(Err(Error::Open))
    }
}

struct Agreement(StaticSecret);

impl AgreementOps for Agreement {
    fn agree(&self, peer: &[u8; 32]) -> Result<Secret, Error> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*peer));
        if shared.was_contributory() {
            Ok(Secret::from_slice(shared.as_bytes()))
        } else {
            Err(Error::Share)
        }
    }
}

struct Kem(DecapsulationKey768);

impl KemOps for Kem {
    fn decapsulate(&self, ciphertext: &[u8; MlKem768Key::CIPHERTEXT_LEN]) -> Result<Secret, Error> {
        let mut shared = self.0.decapsulate(ciphertext.into());
        let secret = Secret::from_slice(&shared);
        shared.zeroize();
        Ok(secret)
    }
}

/// Bytes of a block of SHA-256.
const BLOCK_LEN: usize = 64;
