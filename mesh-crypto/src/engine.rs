//! The seam between this crate's types and the library that does the arithmetic.
//!
//! An [`Engine`] makes key handles; what a handle can do, and what it refuses, is this crate's and the same for every
//! engine. The operations themselves are crate-private traits, so that no raw nonce leaves the crate.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(feature = "rustcrypto")]
mod rustcrypto;

use std::fmt::Debug;
#[cfg(any(feature = "aws-lc", feature = "rustcrypto"))]
use std::sync::Arc;

use crate::AeadAlgorithm;
use crate::Error;
use crate::Random;
use crate::RsaBits;
use crate::RsaKeyPair;
use crate::RsaPublicKey;
use crate::Secret;
use crate::aead::AeadKey;
use crate::agreement::MlKem768Key;
use crate::agreement::X25519Key;
use crate::mac::MacKey;

/// A cryptographic library: it parses and makes keys, once, and the handles it gives out hold them parsed.
pub trait Engine: Send + Sync + Debug {
    /// What it is called in configuration and logs.
    fn name(&self) -> &'static str;

    /// SHA-256 (FIPS 180-4) of the parts as one message.
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32];

    /// An HMAC-SHA256 key (RFC 2104) of any length.
    fn mac_key(&self, key: &[u8]) -> MacKey;

    /// An AES-GCM key.
    ///
    /// # Errors
    ///
    /// [`Error::KeyLength`] if `key` is not as long as the algorithm's.
    fn aead_key(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<AeadKey, Error>;

    /// A fresh X25519 key (RFC 7748), its scalar drawn from `random`.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the source fails.
    fn x25519_key(&self, random: &dyn Random) -> Result<X25519Key, Error>;

    /// A fresh ML-KEM-768 key (FIPS 203 section 7.1), its seeds `d` and `z` drawn from `random`.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the source fails, [`Error::Engine`] if the engine does.
    fn ml_kem_768_key(&self, random: &dyn Random) -> Result<MlKem768Key, Error>;

    /// A fresh secret of 32 bytes, and the ciphertext of 1,088 bytes that gives it to the owner of `key`
    /// (FIPS 203 section 7.2), its message `m` drawn from `random`.
    ///
    /// # Errors
    ///
    /// [`Error::Share`] if `key` is no encapsulation key (length and modulus check of FIPS 203 section 7.2),
    /// [`Error::Random`] if the source fails.
    fn ml_kem_768_encapsulate(
        &self,
        key: &[u8],
        random: &dyn Random,
    ) -> Result<(Vec<u8>, Secret), Error>;

    /// A fresh RSA key pair. At 4096 bits this takes about a second: keep it off request threads.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] if generation fails.
    fn generate_rsa(&self, bits: RsaBits) -> Result<RsaKeyPair, Error>;

    /// Parses an unencrypted PKCS#8 RSA key (RFC 5208) and checks that its parts agree.
    ///
    /// # Errors
    ///
    /// [`Error::KeyRejected`] if it is malformed, [`Error::RsaBits`] if its size is not accepted.
    fn rsa_from_pkcs8(&self, der: &Secret) -> Result<RsaKeyPair, Error>;

    /// Parses a `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7) that holds an RSA key.
    ///
    /// # Errors
    ///
    /// [`Error::KeyRejected`] if it is malformed or not the one DER encoding of its key, [`Error::RsaBits`] if its
    /// size is not accepted.
    fn rsa_from_spki(&self, der: &[u8]) -> Result<RsaPublicKey, Error>;
}

/// The default engine: AWS-LC through `aws-lc-rs`.
///
/// Its interface takes no randomness from outside but the X25519 scalar: RSA and ML-KEM keys, OAEP seeds, PSS salts
/// and ML-KEM messages come from its own generator, and the [`Random`] given for them is not asked.
#[cfg(feature = "aws-lc")]
pub fn aws_lc() -> Arc<dyn Engine> {
    Arc::new(aws_lc::AwsLc)
}

/// The engine in pure Rust: the crates `rsa`, `aes-gcm`, `hmac`, `sha2`, `ml-kem` and `x25519-dalek`.
///
/// All randomness of what it makes for others comes from the [`Random`] given, in this order: 32 bytes of X25519
/// scalar; 64 bytes of ML-KEM key seeds `d` and `z`; 32 bytes of ML-KEM message; 32 bytes of OAEP seed; 32 bytes of
/// PSS salt, then 32 bytes that blind the signature and don't change it. RSA key generation and the blinding of
/// decryption use the system's generator.
///
/// Use it where no C compiler can be had, or to check the other one. Its RSA has no proof of constant time
/// (RUSTSEC-2023-0071) and costs five to ten times as much.
#[cfg(feature = "rustcrypto")]
pub fn rustcrypto() -> Arc<dyn Engine> {
    Arc::new(rustcrypto::RustCrypto)
}

pub(crate) const NONCE_LEN: usize = 12;
pub(crate) const TAG_LEN: usize = 16;

pub(crate) trait AeadOps: Send + Sync {
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Error>;
    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Error>;
}

pub(crate) trait MacOps: Send + Sync {
    fn sign(&self, parts: &[&[u8]]) -> [u8; 32];
}

pub(crate) trait AgreementOps: Send + Sync {
    fn agree(&self, peer: &[u8; 32]) -> Result<Secret, Error>;
}

pub(crate) trait KemOps: Send + Sync {
    fn decapsulate(&self, ciphertext: &[u8; MlKem768Key::CIPHERTEXT_LEN]) -> Result<Secret, Error>;
}

pub(crate) trait RsaPrivateOps: Send + Sync {
    fn decrypt_oaep(&self, ciphertext: &[u8], label: &[u8]) -> Result<Secret, Error>;
    fn sign_pss(&self, message: &[u8], random: &dyn Random) -> Result<Vec<u8>, Error>;
    fn to_pkcs8(&self) -> Result<Secret, Error>;
}

pub(crate) trait RsaPublicOps: Send + Sync {
    fn encrypt_oaep(
        &self,
        plaintext: &[u8],
        label: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, Error>;
    fn verify_pss(&self, message: &[u8], signature: &[u8]) -> Result<(), Error>;
}
