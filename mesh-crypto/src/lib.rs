//! RSA key pairs, AEAD whose nonces cannot repeat, HMAC, HKDF and secrets that cannot be printed.

pub mod aead;
pub mod agreement;
pub mod engine;
mod error;
mod fingerprint;
mod hex;
pub mod kdf;
pub mod keystore;
pub mod mac;
mod pem;
mod random;
pub mod rsa;
mod secret;
mod window;

pub use aead::AeadAlgorithm;
pub use engine::Engine;
pub use error::Error;
pub use fingerprint::Fingerprint;
pub use kdf::Prk;
pub use keystore::KeyStore;
pub use mac::MacKey;
pub use random::Random;
pub use random::SystemRandom;
pub use rsa::RsaBits;
pub use rsa::RsaKeyPair;
pub use rsa::RsaPublicKey;
pub use secret::Secret;
