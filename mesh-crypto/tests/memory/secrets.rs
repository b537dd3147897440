//! Secrets and symmetric keys.

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::Prk;
use mesh_crypto::Random;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;

use crate::memory::Canary;
use crate::memory::alone;

const OAEP: &str = "cfdb880604c99f7b8626dee05222980ce5d4ef930ef4e34d402bcc0e0df99d9c";
const KEY: &str = "140714886baf077a1ca443b221df768ee2dfd0c0bef4843cd89be8dcfb3d4355";
const SCALAR: &str = "600700d682cd6ed0f17c62ef14c75651d6e407292d8a977a1e466cccd5e865e4";

fn secret(canary: &Canary) -> Secret {
    let mut bytes = vec![0; canary.len()];
    canary.write(&mut bytes);
    Secret::new(bytes)
}

/// Gives the bytes of a canary.
struct Known(Canary);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Known")
    }
}

impl Random for Known {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        self.0.write(out);
        Ok(())
    }
}

/// That the search finds what is there, once, and what was not wiped.
#[test]
fn a_secret_is_found_while_it_is_there() {
    let _alone = alone();
    let canary =
        Canary::from_hex("00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    assert_eq!(canary.count(), 0);
    let held = secret(&canary);
    assert_eq!(canary.count(), 1);
    let copy = held.expose().to_vec();
    assert_eq!(canary.count(), 2);
    drop(held);
    assert_eq!(canary.count(), 1);
    assert_eq!(copy.len(), canary.len());
}

// threat 20
#[test]
fn an_oaep_secret_is_gone_when_it_was_dropped() {
    let _alone = alone();
    let canary = Canary::from_hex(OAEP);
    for engine in [aws_lc(), rustcrypto()] {
        let key = RsaKeyPair::generate(&*engine, RsaBits::B2048).unwrap();
        let plain = secret(&canary);
        let wrapped = key
            .public()
            .encrypt_oaep(plain.expose(), b"label", &SystemRandom::new());
        let wrapped = wrapped.unwrap();
        drop(plain);
        assert_eq!(canary.count(), 0, "{} encrypting", engine.name());
        let opened = key.decrypt_oaep(&wrapped, b"label").unwrap();
        assert!(canary.count() > 0);
        drop(opened);
        let instead = key.decrypt_oaep_or_random(&wrapped, b"label", 32, &SystemRandom::new());
        drop(instead.unwrap());
        drop(key);
        assert_eq!(canary.count(), 0, "{}", engine.name());
    }
}

// threat 20
#[test]
fn symmetric_keys_are_gone_when_they_were_dropped() {
    let _alone = alone();
    let canary = Canary::from_hex(KEY);
    for engine in [aws_lc(), rustcrypto()] {
        let bytes = secret(&canary);
        let mac = engine.mac_key(bytes.expose());
        let aead = engine.aead_key(AeadAlgorithm::Aes256Gcm, bytes.expose());
        let prk = Prk::from_secret(&*engine, &bytes);
        let mut out = [0; 40];
        prk.expand(&[b"info"], &mut out).unwrap();
        drop((mac, aead.unwrap(), prk, bytes));
        if engine.name() == "rustcrypto" {
            // It leaves copies on the stack, as SECURITY.md says, which live until it is used again.
            use_the_stack();
        }
        assert_eq!(canary.count(), 0, "{}", engine.name());
    }
}

#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what this is about")]
fn use_the_stack() {
    std::hint::black_box(&mut [0_u8; 64 * 1024]);
}

// threat 20, threat 31
#[test]
fn the_scalar_of_a_share_and_what_was_agreed_are_gone_when_they_were_dropped() {
    let _alone = alone();
    let scalar = Canary::from_hex(SCALAR);
    for engine in [aws_lc(), rustcrypto()] {
        let ours = engine.x25519_key(&Known(scalar.clone())).unwrap();
        let peer = engine.x25519_key(&SystemRandom::new()).unwrap();
        let agreed = ours.agree(peer.share()).unwrap();
        let canary = masked(&*engine, &agreed);
        assert!(canary.count() > 0);
        drop((ours, peer, agreed));
        assert_eq!(
            (scalar.count(), canary.count()),
            (0, 0),
            "{}",
            engine.name()
        );
    }
}

/// A canary of a secret that is known only now. The digits on the way to it are no copy of it.
fn masked(_: &dyn Engine, secret: &Secret) -> Canary {
    use std::fmt::Write as _;
    let mut digits = String::new();
    for byte in secret.expose() {
        write!(digits, "{byte:02x}").unwrap();
    }
    Canary::from_hex(&digits)
}
