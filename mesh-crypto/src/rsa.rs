//! RSA identity keys: OAEP to encrypt to their owner, PSS to prove being it.
//!
//! # Sources
//!
//! RFC 8017 sections 7.1 (OAEP) and 8.1 (PSS), both with SHA-256 and MGF1-SHA256, the PSS salt as long as the hash;
//! PKCS#8 (RFC 5208) and `SubjectPublicKeyInfo` (RFC 5280) as encodings.

pub(crate) mod der;

use std::fmt;
use std::sync::Arc;

use crate::Engine;
use crate::Error;
use crate::Fingerprint;
use crate::Random;
use crate::Secret;
use crate::engine::RsaPrivateOps;
use crate::engine::RsaPublicOps;
use crate::pem;

/// The accepted sizes of an RSA modulus.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum RsaBits {
    /// 2048 bits, about 112 bits of security (NIST SP 800-57 part 1, table 2).
    B2048,
    /// 3072 bits, about 128 bits of security.
    B3072,
    /// 4096 bits; the default.
    #[default]
    B4096,
}

impl RsaBits {
    /// The size that is `bits` bits.
    ///
    /// # Errors
    ///
    /// [`Error::RsaBits`] if that is not one of the three.
    pub const fn from_bits(bits: usize) -> Result<Self, Error> {
        match bits {
            2048 => Ok(Self::B2048),
            3072 => Ok(Self::B3072),
            4096 => Ok(Self::B4096),
            _ => Err(Error::RsaBits { bits }),
        }
    }

    /// The size in bits.
    pub const fn bits(self) -> usize {
        match self {
            Self::B2048 => 2048,
            Self::B3072 => 3072,
            Self::B4096 => 4096,
        }
    }

    /// The length in bytes of a ciphertext and of a signature.
    pub const fn modulus_len(self) -> usize {
        self.bits() / 8
    }
}

/// An RSA private key with its public half, parsed once and held.
pub struct RsaKeyPair {
    public: RsaPublicKey,
    ops: Box<dyn RsaPrivateOps>,
}

impl RsaKeyPair {
    pub(crate) fn new(public: RsaPublicKey, ops: Box<dyn RsaPrivateOps>) -> Self {
        Self { public, ops }
    }

    /// A fresh key pair. At 4096 bits this takes about a second: keep it off request threads.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] if generation fails.
    pub fn generate(engine: &dyn Engine, bits: RsaBits) -> Result<Self, Error> {
        engine.generate_rsa(bits)
    }

    /// Reads an unencrypted PKCS#8 key (`-----BEGIN PRIVATE KEY-----`).
    ///
    /// # Errors
    ///
    /// [`Error::Pem`] if the text is not that, [`Error::KeyRejected`] or [`Error::RsaBits`] if the key is not good.
    pub fn from_pkcs8_pem(engine: &dyn Engine, text: &Secret) -> Result<Self, Error> {
        engine.rsa_from_pkcs8(&pem::decode(PRIVATE_KEY, text.expose())?)
    }

    /// The key as unencrypted PKCS#8 in PEM.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] if it cannot be encoded.
    pub fn to_pkcs8_pem(&self) -> Result<Secret, Error> {
        Ok(pem::encode(PRIVATE_KEY, self.ops.to_pkcs8()?.expose()))
    }

    /// The public half.
    pub fn public(&self) -> &RsaPublicKey {
        &self.public
    }

    /// Decrypts what was encrypted to [`public`](Self::public) under the same label.
    ///
    /// Never let a peer learn whether this failed: [`decrypt_oaep_or_random`](Self::decrypt_oaep_or_random) does not.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if it was not.
    pub fn decrypt_oaep(&self, ciphertext: &[u8], label: &[u8]) -> Result<Secret, Error> {
        self.ops.decrypt_oaep(ciphertext, label)
    }

    /// Decrypts a secret of `len` bytes, or gives `len` fresh ones where there is none, so that a wrong ciphertext
    /// shows only later and in one way: as a key that opens nothing (Manger's and Bleichenbacher's attacks need to
    /// see a difference here).
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the source fails.
    pub fn decrypt_oaep_or_random(
        &self,
        ciphertext: &[u8],
        label: &[u8],
        len: usize,
        random: &dyn Random,
    ) -> Result<Secret, Error> {
        // Drawn in either case, so that both take the same time.
        let instead = Secret::random(len, random)?;
        Ok(match self.ops.decrypt_oaep(ciphertext, label) {
            Ok(secret) if secret.len() == len => secret,
            // As much copying as where there is one, and `instead` is wiped in either case.
            Ok(_) | Err(_) => Secret::from_slice(instead.expose()),
        })
    }

    /// A PSS signature of `message`, its salt of 32 bytes drawn from `random` where the
    /// [engine](mod@crate::engine) takes one.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the source fails, [`Error::Engine`] if the engine does.
    pub fn sign_pss(&self, message: &[u8], random: &dyn Random) -> Result<Vec<u8>, Error> {
        self.ops.sign_pss(message, random)
    }
}

impl fmt::Debug for RsaKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaKeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// An RSA public key, parsed once and held; cheap to clone.
#[derive(Clone)]
pub struct RsaPublicKey(Arc<Public>);

struct Public {
    bits: RsaBits,
    spki: Box<[u8]>,
    fingerprint: Fingerprint,
    ops: Box<dyn RsaPublicOps>,
}

impl RsaPublicKey {
    pub(crate) fn new(
        bits: RsaBits,
        spki: &[u8],
        digest: [u8; 32],
        ops: Box<dyn RsaPublicOps>,
    ) -> Self {
        let fingerprint = Fingerprint::from_bytes(digest);
        Self(Arc::new(Public {
            bits,
            spki: spki.into(),
            fingerprint,
            ops,
        }))
    }

    /// Reads a `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    ///
    /// [`Error::KeyRejected`] if it is malformed or not the one DER encoding of its key, [`Error::RsaBits`] if its
    /// size is not accepted.
    pub fn from_spki_der(engine: &dyn Engine, der: &[u8]) -> Result<Self, Error> {
        engine.rsa_from_spki(der)
    }

    /// The key as `SubjectPublicKeyInfo` in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    /// The size of its modulus.
    pub fn bits(&self) -> RsaBits {
        self.0.bits
    }

    /// SHA-256 of [`spki_der`](Self::spki_der).
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Encrypts at most `modulus_len - 66` bytes (RFC 8017 section 7.1.1) to the owner of the private key,
    /// the seed of 32 bytes drawn from `random` where the [engine](mod@crate::engine) takes one.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if the plaintext is longer, [`Error::Random`] if the source fails, [`Error::Engine`] if the
    /// engine does.
    pub fn encrypt_oaep(
        &self,
        plaintext: &[u8],
        label: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, Error> {
        let limit = self.bits().modulus_len() - 2 * 32 - 2;
        if plaintext.len() > limit {
            return Err(Error::Length {
                limit,
                got: plaintext.len(),
            });
        }
        self.0.ops.encrypt_oaep(plaintext, label, random)
    }

    /// Checks a PSS signature of `message`.
    ///
    /// # Errors
    ///
    /// [`Error::Signature`] if the owner of the private key did not make it.
    pub fn verify_pss(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        self.0.ops.verify_pss(message, signature)
    }
}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaPublicKey")
            .field("bits", &self.bits().bits())
            .field("fingerprint", &self.fingerprint())
            .finish()
    }
}

impl PartialEq for RsaPublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.spki == other.0.spki
    }
}

impl Eq for RsaPublicKey {}

const PRIVATE_KEY: &str = "PRIVATE KEY";
