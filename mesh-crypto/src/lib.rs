//! RSA key pairs, AEAD whose nonces cannot repeat, HMAC, HKDF and secrets that cannot be printed.
//!
//! ```rust
//! # use std::sync::Arc;
//! use mesh_crypto::aead::{OpeningKey, SealingKey};
//! use mesh_crypto::{AeadAlgorithm, Prk, RsaBits, RsaKeyPair, Secret, SystemRandom, engine::aws_lc};
//!
//! # fn main() -> Result<(), mesh_crypto::Error> {
//! let engine = aws_lc();
//! let owner = RsaKeyPair::generate(&*engine, RsaBits::B2048)?;
//! let random = SystemRandom::new();
//! let secret = Secret::random(32, &random)?;
//! let wrapped = owner.public().encrypt_oaep(secret.expose(), b"example", &random)?;
//!
//! let mut key = [0; 32];
//! Prk::extract(&*engine, b"salt", &[owner.decrypt_oaep(&wrapped, b"example")?.expose()]).expand(&[b"key"], &mut key)?;
//! let sealing = Arc::new(SealingKey::counting(engine.aead_key(AeadAlgorithm::Aes256Gcm, &key)?, [0; 12]));
//! let mut stream = sealing.next_stream()?;
//! let mut text = *b"hello";
//! let tag = stream.seal(b"to whom", &mut text)?;
//!
//! let opening = OpeningKey::new(engine.aead_key(AeadAlgorithm::Aes256Gcm, &key)?, [0; 12]);
//! opening.open((0, 0), b"to whom", &mut text, &tag)?;
//! assert_eq!(&text, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Where to start
//!
//! | you want | see |
//! |---|---|
//! | data sealed for one recipient and signed, in a file or a queue | [`envelope`], `examples/envelope.rs`, `ENVELOPE.md` |
//! | an identity key on disk that is made, rotated and retired | [`keystore`] |
//! | to seal messages without thinking of nonces | [`aead`] |
//! | a channel between two services | the crate `mesh-session`, which stands on this one |
//! | no C compiler | the feature `rustcrypto` instead of `aws-lc`, and its advisory below |
//!
//! # What this crate does not do
//!
//! - It has no TLS, certificates or tokens; other crates do those.
//! - It takes no nonce to seal with: [`aead::SealingKey`] makes them, each once.
//! - It chooses no engine by itself: the caller names one, and every key remembers whose it is.
//! - RSA key generation and blinding use the system's randomness, not [`Random`]; [`engine::aws_lc`] has more that do.
//! - Deleting a key file does not overwrite it; see [`keystore`].
//!
//! # Modules
//!
//! | module | what is in it |
//! |---|---|
//! | [`aead`] | AES-GCM: keys that seal with nonces of their own, keys that open |
//! | [`agreement`] | X25519 and ML-KEM-768 |
//! | [`engine`] | the seam to the cryptographic libraries: [`engine::aws_lc`] and `engine::rustcrypto` |
//! | [`envelope`] | data from one RSA key to one other, for files and queues |
//! | [`kdf`] | HKDF-SHA256 |
//! | [`keystore`] | identity keys on disk: made, rotated, retired |
//! | [`mac`] | HMAC-SHA256 |
//! | [`pem`] | public keys as text |
//! | [`rsa`] | RSA key pairs: OAEP and PSS |
//!
//! At the root: [`Secret`], [`Random`], [`Fingerprint`], [`Error`].
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `aws-lc` (default) | `engine::aws_lc`: AWS-LC, which needs a C compiler |
//! | `rustcrypto` | `engine::rustcrypto`: pure Rust, five to ten times slower at RSA, whose timing is the subject of an open [advisory] |
//! | `encrypted-keys` | identity keys encrypted on disk (PKCS#8 with PBES2), as `openssl pkcs8` does |
//!
//! [advisory]: https://rustsec.org/advisories/RUSTSEC-2023-0071
#![cfg_attr(
    not(any(feature = "aws-lc", feature = "rustcrypto")),
    expect(
        dead_code,
        reason = "it is for engines to make keys, and there is none"
    )
)]

pub mod aead;
pub mod agreement;
pub mod engine;
pub mod envelope;
mod error;
mod fingerprint;
mod hex;
pub mod kdf;
pub mod keystore;
pub mod mac;
pub mod pem;
mod random;
pub mod rsa;
mod secret;

pub use aead::AeadAlgorithm;
pub use engine::Engine;
pub use error::Error;
pub use fingerprint::Fingerprint;
pub use kdf::Prk;
pub use keystore::KeyStore;
pub use mac::MacKey;
pub use random::Random;
#[cfg(any(feature = "aws-lc", feature = "rustcrypto"))]
pub use random::SystemRandom;
pub use rsa::RsaBits;
pub use rsa::RsaKeyPair;
pub use rsa::RsaPublicKey;
pub use secret::Secret;
