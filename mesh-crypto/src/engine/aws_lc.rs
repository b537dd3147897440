//! AWS-LC: constant time by its own account, blinded RSA, one C compiler needed.

use aws_lc_rs::aead;
use aws_lc_rs::agreement;
use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::kem;
use aws_lc_rs::rand;
use aws_lc_rs::rsa;
use aws_lc_rs::signature;
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
use crate::engine::RsaPrivateOps;
use crate::engine::RsaPublicOps;
use crate::engine::TAG_LEN;
use crate::mac::MacKey;
use crate::rsa::der;
use crate::rsa::der::Spki;

#[derive(Debug)]
pub(super) struct AwsLc;

impl Engine for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        // A context is memory of the library's; a hash of one part does without.
        if let [part] = parts {
            return first_32(digest::digest(&digest::SHA256, part).as_ref());
        }
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(part);
        }
        first_32(context.finish().as_ref())
    }

    fn mac_key(&self, key: &[u8]) -> MacKey {
        MacKey::new(Box::new(Mac(hmac::Key::new(hmac::HMAC_SHA256, key))))
    }

    fn aead_key(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<AeadKey, Error> {
        let chosen = match algorithm {
            AeadAlgorithm::Aes128Gcm => &aead::AES_128_GCM,
            AeadAlgorithm::Aes192Gcm => &aead::AES_192_GCM,
            AeadAlgorithm::Aes256Gcm => &aead::AES_256_GCM,
        };
        let key = aead::UnboundKey::new(chosen, key).map_err(|Unspecified| Error::KeyLength {
            expected: algorithm.key_len(),
            got: key.len(),
        })?;
        Ok(AeadKey::new(
            algorithm,
            Box::new(Aead(aead::LessSafeKey::new(key))),
        ))
    }

    fn x25519_key(&self, random: &dyn Random) -> Result<X25519Key, Error> {
        let mut scalar = Zeroizing::new([0; 32]);
        random.fill(scalar.as_mut_slice())?;
        let failed = Error::Engine {
            action: "make an x25519 key",
        };
        let Ok(key) =
            agreement::PrivateKey::from_private_key(&agreement::X25519, scalar.as_slice())
        else {
            return Err(failed);
        };
        let public = key.compute_public_key().map_err(|Unspecified| failed)?;
        Ok(X25519Key::new(
            first_32(public.as_ref()),
            Box::new(Agreement(key)),
        ))
    }

    fn ml_kem_768_key(&self, _: &dyn Random) -> Result<MlKem768Key, Error> {
        let failed = |Unspecified| Error::Engine {
            action: "make an ml-kem key",
        };
        let key = kem::DecapsulationKey::generate(&kem::ML_KEM_768).map_err(failed)?;
        let ek = key
            .encapsulation_key()
            .and_then(|ek| ek.key_bytes())
            .map_err(failed)?;
        let ek = ek.as_ref().try_into().or(Err(failed(Unspecified)))?;
        Ok(MlKem768Key::new(Box::new(ek), Box::new(Kem(key))))
    }

    fn ml_kem_768_encapsulate(
        &self,
        key: &[u8],
        _: &dyn Random,
    ) -> Result<(Vec<u8>, Secret), Error> {
        // The length is checked here, the modulus when it encapsulates.
        let (ciphertext, secret) = kem::EncapsulationKey::new(&kem::ML_KEM_768, key)
            .or(Err(Error::Share))?
            .encapsulate()
            .map_err(|Unspecified| Error::Share)?;
        Ok((
            ciphertext.as_ref().to_vec(),
            Secret::from_slice(secret.as_ref()),
        ))
    }

    fn generate_rsa(&self, bits: RsaBits) -> Result<RsaKeyPair, Error> {
        let size = match bits {
            RsaBits::B2048 => rsa::KeySize::Rsa2048,
            RsaBits::B3072 => rsa::KeySize::Rsa3072,
            RsaBits::B4096 => rsa::KeySize::Rsa4096,
        };
        let failed = |Unspecified| Error::Engine {
            action: "generate an rsa key",
        };
        let key = rsa::PrivateDecryptingKey::generate(size).map_err(failed)?;
        let der: Pkcs8V1Der<'_> = key.as_der().map_err(failed)?;
        self.rsa_from_pkcs8(&Secret::from_slice(der.as_ref()))
    }

    fn rsa_from_pkcs8(&self, der: &Secret) -> Result<RsaKeyPair, Error> {
        let rejected = der::PRIVATE_REJECTED;
        // The library would take what follows the key, other versions and attributes.
        der::private_key(der.expose())?;
        let (Ok(decrypt), Ok(sign)) = (
            rsa::PrivateDecryptingKey::from_pkcs8(der.expose()),
            rsa::KeyPair::from_pkcs8(der.expose()),
        ) else {
            return Err(rejected);
        };
        let Ok(spki) = AsDer::<PublicKeyX509Der<'_>>::as_der(&decrypt.public_key()) else {
            return Err(rejected);
        };
        let public = self.rsa_from_spki(spki.as_ref())?;
        let decrypt = rsa::OaepPrivateDecryptingKey::new(decrypt).or(Err(rejected))?;
        Ok(RsaKeyPair::new(public, Box::new(Private { decrypt, sign })))
    }

    fn rsa_from_spki(&self, der: &[u8]) -> Result<RsaPublicKey, Error> {
        let spki = Spki::parse(der)?;
        let numbers = rsa::PublicKeyComponents {
            n: spki.modulus,
            e: spki.exponent,
        };
        let verify = numbers
            .to_parsed_public_key(&signature::RSA_PSS_2048_8192_SHA256)
            .or(Err(der::REJECTED))?;
        let encrypt: rsa::PublicEncryptingKey = numbers.try_into().or(Err(der::REJECTED))?;
        let encrypt = rsa::OaepPublicEncryptingKey::new(encrypt).or(Err(der::REJECTED))?;
        let fingerprint = self.sha256(&[der]);
        Ok(RsaPublicKey::new(
            spki.bits,
            der,
            fingerprint,
            Box::new(Public { encrypt, verify }),
        ))
    }
}

struct Mac(hmac::Key);

impl MacOps for Mac {
    fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        first_32(context.sign().as_ref())
    }
}

struct Aead(aead::LessSafeKey);

impl AeadOps for Aead {
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Error> {
        let tag = self
            .0
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(aad),
                in_out,
            )
            .map_err(|Unspecified| Error::Engine { action: "seal" })?;
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Error> {
        self.0
            .open_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(aad),
                tag,
                in_out,
            )
            .map(|_| ())
            .map_err(|Unspecified| Error::Open)
    }
}

struct Agreement(agreement::PrivateKey);

impl AgreementOps for Agreement {
    fn agree(&self, peer: &[u8; 32]) -> Result<Secret, Error> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, peer);
        agreement::agree(&self.0, peer, Error::Share, |shared| {
            Ok(Secret::from_slice(shared))
        })
    }
}

struct Kem(kem::DecapsulationKey);

impl KemOps for Kem {
    fn decapsulate(&self, ciphertext: &[u8; MlKem768Key::CIPHERTEXT_LEN]) -> Result<Secret, Error> {
        self.0
            .decapsulate(ciphertext.as_slice().into())
            .map(|secret| Secret::from_slice(secret.as_ref()))
            .map_err(|Unspecified| Error::Engine {
                action: "decapsulate",
            })
    }
}

struct Private {
    decrypt: rsa::OaepPrivateDecryptingKey,
    sign: rsa::KeyPair,
}

impl RsaPrivateOps for Private {
    fn decrypt_oaep(&self, ciphertext: &[u8], label: &[u8]) -> Result<Secret, Error> {
        let mut out = Zeroizing::new(vec![0; self.decrypt.min_output_size()]);
        self.decrypt
            .decrypt(
                &rsa::OAEP_SHA256_MGF1SHA256,
                ciphertext,
                &mut out,
                Some(label),
            )
            .map(|plaintext| Secret::from_slice(plaintext))
            .map_err(|Unspecified| Error::Open)
    }

    fn sign_pss(&self, message: &[u8], _: &dyn Random) -> Result<Vec<u8>, Error> {
        let mut out = vec![0; self.sign.public_modulus_len()];
        self.sign
            .sign(
                &signature::RSA_PSS_SHA256,
                &rand::SystemRandom::new(),
                message,
                &mut out,
            )
            .map_err(|Unspecified| Error::Engine { action: "sign" })?;
        Ok(out)
    }

    fn to_pkcs8(&self) -> Result<Secret, Error> {
        let der: Pkcs8V1Der<'_> = self.sign.as_der().map_err(|Unspecified| Error::Engine {
            action: "encode an rsa key",
        })?;
        Ok(Secret::from_slice(der.as_ref()))
    }
}

struct Public {
    encrypt: rsa::OaepPublicEncryptingKey,
    verify: signature::ParsedPublicKey,
}

impl RsaPublicOps for Public {
    fn encrypt_oaep(
        &self,
        plaintext: &[u8],
        label: &[u8],
        _: &dyn Random,
    ) -> Result<Vec<u8>, Error> {
        let mut out = vec![0; self.encrypt.ciphertext_size()];
        self.encrypt
            .encrypt(
                &rsa::OAEP_SHA256_MGF1SHA256,
                plaintext,
                &mut out,
                Some(label),
            )
            .map_err(|Unspecified| Error::Engine {
                action: "encrypt to an rsa key",
            })?;
        Ok(out)
    }

    fn verify_pss(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        self.verify
            .verify_sig(message, signature)
            .map_err(|Unspecified| Error::Signature)
    }
}

/// The first 32 bytes; every caller has exactly 32.
fn first_32(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(bytes);
    out
}
