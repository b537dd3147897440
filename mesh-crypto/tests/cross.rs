//! What one engine makes the other opens, both refuse the same, and both write the same bytes.
#![cfg(all(feature = "aws-lc", feature = "rustcrypto"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

#[path = "support/fixed.rs"]
mod fixed;
#[path = "support/hex.rs"]
mod hex;

use std::mem::discriminant;
use std::sync::Arc;
use std::sync::LazyLock;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::Prk;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::SealingKey;
use mesh_crypto::agreement::MlKem768Key;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fixed::Fixed;
use crate::hex::hex;

type Engines = [Arc<dyn Engine>; 2];

/// Who makes, who opens: both ways.
fn directions() -> [Engines; 2] {
    [[aws_lc(), rustcrypto()], [rustcrypto(), aws_lc()]]
}

/// For each direction one key in both engines, and its PKCS#8 as its maker wrote it.
struct Shared {
    made: RsaKeyPair,
    read: RsaKeyPair,
    pkcs8: Secret,
}

static KEYS: LazyLock<[Shared; 2]> = LazyLock::new(|| {
    directions().map(|[maker, reader]| {
        let made = RsaKeyPair::generate(&*maker, RsaBits::B2048).unwrap();
        let pem = made.to_pkcs8_pem().unwrap();
        let read = RsaKeyPair::from_pkcs8_pem(&*reader, &pem).unwrap();
        let pkcs8 = Secret::new(pem_body(pem.expose()));
        Shared { made, read, pkcs8 }
    })
});

const RANDOM: SystemRandom = SystemRandom::new();

fn algorithm() -> impl Strategy<Value = AeadAlgorithm> {
    prop_oneof![
        Just(AeadAlgorithm::Aes128Gcm),
        Just(AeadAlgorithm::Aes192Gcm),
        Just(AeadAlgorithm::Aes256Gcm),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_one_seals_the_other_opens(
        algorithm in algorithm(),
        key in vec(any::<u8>(), 32),
        iv in any::<[u8; 12]>(),
        aad in vec(any::<u8>(), 0..300),
        text in vec(any::<u8>(), 0..3_000),
        skipped in 0_usize..4,
    ) {
        let mut tags = Vec::new();
        for [sealer, opener] in directions() {
            let key = |engine: &dyn Engine| {
                engine.aead_key(algorithm, &key[..algorithm.key_len()]).unwrap()
            };
            let sealing = Arc::new(SealingKey::counting(key(&*sealer), iv));
            let mut stream = sealing.next_stream().unwrap();
            for _ in 0..skipped {
                stream.seal(b"", &mut []).unwrap();
            }
            let mut buffer = text.clone();
            let tag = stream.seal(&aad, &mut buffer).unwrap();
            tags.push((buffer.clone(), tag));
            let at = (0, u32::try_from(skipped).unwrap());
            OpeningKey::new(key(&*opener), iv).open(at, &aad, &mut buffer, &tag).unwrap();
            prop_assert_eq!(&buffer, &text);
        }
        prop_assert_eq!(&tags[0], &tags[1]);
    }

    #[test]
    fn both_hash_authenticate_and_derive_alike(
        key in vec(any::<u8>(), 0..200),
        message in vec(any::<u8>(), 0..1_000),
        len in 0_usize..500,
    ) {
        let [left, right] = [aws_lc(), rustcrypto()].map(|engine| {
            let mut out = vec![0; len];
            Prk::extract(&*engine, &key, &[&message]).expand(&[&message], &mut out).unwrap();
            let tag = engine.mac_key(&key).sign(&[&message, &key]);
            (engine.sha256(&[&message]), tag, out)
        });
        prop_assert_eq!(left, right);
    }

    #[test]
    fn both_agree_on_an_x25519_secret(ours in any::<[u8; 32]>(), theirs in any::<[u8; 32]>()) {
        let [left, right] = [aws_lc(), rustcrypto()].map(|engine| {
            let random = Fixed::new(&ours);
            let ours = engine.x25519_key(&random).unwrap();
            assert!(random.is_used_up());
            let theirs = engine.x25519_key(&Fixed::new(&theirs)).unwrap();
            (*ours.share(), ours.agree(theirs.share()).unwrap(), theirs.agree(ours.share()).unwrap())
        });
        prop_assert_eq!(&left.1, &left.2);
        prop_assert_eq!(&left, &right);
    }

    /// Any bytes are a share, or are refused by both.
    #[test]
    fn both_take_the_same_x25519_shares(ours in any::<[u8; 32]>(), theirs in any::<[u8; 32]>()) {
        let [left, right] = [aws_lc(), rustcrypto()].map(|engine| {
            engine.x25519_key(&Fixed::new(&ours)).unwrap().agree(&theirs).ok()
        });
        prop_assert_eq!(left, right);
    }

    #[test]
    fn what_one_encrypts_and_signs_the_other_decrypts_and_verifies(
        text in vec(any::<u8>(), 0..190),
        label in vec(any::<u8>(), 0..100),
        message in vec(any::<u8>(), 0..500),
    ) {
        for Shared { made, read, .. } in &*KEYS {
            for [from, to] in [[made, read], [read, made]] {
                let sealed = from.public().encrypt_oaep(&text, &label, &RANDOM).unwrap();
                let opened = to.decrypt_oaep(&sealed, &label).unwrap();
                prop_assert_eq!(opened.expose(), text.as_slice());
                let signature = from.sign_pss(&message, &RANDOM).unwrap();
                to.public().verify_pss(&message, &signature).unwrap();
            }
        }
    }

    #[test]
    fn what_one_encapsulates_the_other_decapsulates(at in 0..MlKem768Key::CIPHERTEXT_LEN, bit in 0..8_u8) {
        for [owner, peer] in directions() {
            let key = owner.ml_kem_768_key(&RANDOM).unwrap();
            let (mut ciphertext, secret) = peer.ml_kem_768_encapsulate(key.ek(), &RANDOM).unwrap();
            prop_assert_eq!(&key.decapsulate(&ciphertext).unwrap(), &secret);
            ciphertext[at] ^= 1 << bit;
            let rejected = key.decapsulate(&ciphertext).unwrap();
            prop_assert_ne!(&rejected, &secret);
            prop_assert_eq!(rejected, key.decapsulate(&ciphertext).unwrap());
        }
    }

    /// A key with a bit changed is the same key, or the same error, to both.
    #[test]
    fn both_judge_a_damaged_rsa_key_alike(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        for Shared { made, pkcs8, .. } in &*KEYS {
            let damage = |der: &[u8]| {
                let mut der = der.to_vec();
                let at = at.index(der.len());
                der[at] ^= 1 << bit;
                der
            };
            let spki = damage(made.public().spki_der());
            same(|engine| engine.rsa_from_spki(&spki).map(|key| key.fingerprint()));
            let pkcs8 = Secret::new(damage(pkcs8.expose()));
            same(|engine| engine.rsa_from_pkcs8(&pkcs8).map(|key| key.public().fingerprint()));
        }
    }
}

/// Both engines give the same value or the same kind of error, which is returned.
fn same<T: PartialEq + std::fmt::Debug>(
    ask: impl Fn(&dyn Engine) -> Result<T, Error>,
) -> Option<Error> {
    match [aws_lc(), rustcrypto()].map(|engine| ask(&*engine)) {
        [Ok(left), Ok(right)] => {
            assert_eq!(left, right);
            None
        }
        [Err(left), Err(right)] => {
            assert_eq!(
                discriminant(&left),
                discriminant(&right),
                "{left} / {right}"
            );
            Some(left)
        }
        differing => unreachable!("one takes what the other refuses: {differing:?}"),
    }
}

#[test]
fn a_key_that_one_wrote_is_the_same_key_to_the_other() {
    for Shared { made, read, pkcs8 } in &*KEYS {
        assert_eq!(made.public(), read.public());
        assert_eq!(made.public().fingerprint(), read.public().fingerprint());
        let again = read.to_pkcs8_pem().unwrap();
        assert_eq!(pem_body(again.expose()), pkcs8.expose());
        let spki = made.public().spki_der();
        assert!(same(|engine| engine.rsa_from_spki(spki).map(|key| key.fingerprint())).is_none());
    }
}

#[test]
fn both_refuse_the_same_shares_and_ciphertexts() {
    let is_share = |error| assert!(matches!(error, Some(Error::Share)));
    let key = aws_lc().ml_kem_768_key(&RANDOM).unwrap();
    let encapsulate = |ek: &[u8]| {
        same(|engine| {
            engine
                .ml_kem_768_encapsulate(ek, &RANDOM)
                .map(|made| made.0.len())
        })
    };
    assert!(encapsulate(key.ek()).is_none());
    is_share(encapsulate(&[]));
    is_share(encapsulate(&key.ek()[1..]));
    is_share(encapsulate(&[&key.ek()[..], &[0]].concat()));
    // The first coefficient is 3329, the modulus; then the last one.
    let mut ek = *key.ek();
    ek[0] = 0x01;
    ek[1] = ek[1] & 0xf0 | 0x0d;
    is_share(encapsulate(&ek));
    let mut ek = *key.ek();
    ek[1151] = 0xd0;
    ek[1150] = ek[1150] & 0x0f | 0x10;
    is_share(encapsulate(&ek));

    let decapsulate = |ciphertext: &[u8]| {
        same(|engine| {
            engine
                .ml_kem_768_key(&RANDOM)?
                .decapsulate(ciphertext)
                .map(|_| ())
        })
    };
    assert!(decapsulate(&[0; 1088]).is_none());
    is_share(decapsulate(&[0; 1087]));
    is_share(decapsulate(&[0; 1089]));

    // RFC 7748 section 6.1: these give the all-zero secret whatever the key is.
    for point in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let point = hex(point).try_into().unwrap();
        is_share(same(|engine| engine.x25519_key(&RANDOM)?.agree(&point)));
    }
}

#[test]
fn both_refuse_the_same_keys() {
    for len in [0, 15, 17, 24, 31, 33] {
        let make = |engine: &dyn Engine| {
            engine
                .aead_key(AeadAlgorithm::Aes256Gcm, &vec![0; len])
                .map(|_| ())
        };
        assert!(matches!(same(make), Some(Error::KeyLength { .. })), "{len}");
    }
    let Shared { pkcs8, .. } = &KEYS[0];
    let read = |der: &[u8]| {
        let der = Secret::from_slice(der);
        same(|engine| {
            engine
                .rsa_from_pkcs8(&der)
                .map(|key| key.public().fingerprint())
        })
    };
    assert!(read(pkcs8.expose()).is_none());
    let is_rejected = |error| {
        assert!(
            matches!(error, Some(Error::KeyRejected { .. })),
            "{error:?}"
        );
    };
    is_rejected(read(b""));
    is_rejected(read(&[pkcs8.expose(), &[0]].concat()));
    is_rejected(read(&pkcs8.expose()[1..]));
    is_rejected(read(&pkcs8.expose()[..pkcs8.len() - 1]));
    // The inner RSAPrivateKey without its PKCS#8 wrapping.
    is_rejected(read(&pkcs8.expose()[26..]));
    // The last byte of the last number, the CRT coefficient; then of each number before it.
    let mut at = pkcs8.len() - 1;
    for len in [128, 128, 128, 128, 128, 256] {
        let mut der = pkcs8.expose().to_vec();
        der[at] ^= 2;
        is_rejected(read(&der));
        at -= len;
    }
}

#[test]
fn both_refuse_the_same_ciphertexts_tags_and_signatures() {
    let Shared { made, read, .. } = &KEYS[0];
    let sealed = made
        .public()
        .encrypt_oaep(b"secret", b"label", &RANDOM)
        .unwrap();
    let signature = made.sign_pss(b"message", &RANDOM).unwrap();
    let longer = [&sealed[..], &[0]].concat();
    let leading = [&[0], &sealed[..]].concat();
    for bad in [
        &sealed[1..],
        &longer,
        &leading,
        &[0; 256],
        &[1; 256],
        &[0xff; 256],
        &[],
    ] {
        for key in [made, read] {
            assert!(matches!(key.decrypt_oaep(bad, b"label"), Err(Error::Open)));
            assert!(matches!(
                key.public().verify_pss(b"message", bad),
                Err(Error::Signature)
            ));
        }
    }
    for key in [made, read] {
        assert!(matches!(key.decrypt_oaep(&sealed, b""), Err(Error::Open)));
        assert!(matches!(
            key.public().verify_pss(b"", &signature),
            Err(Error::Signature)
        ));
        key.public().verify_pss(b"message", &signature).unwrap();
    }
    for tag in [&[0; 16][..], &[0; 15], &[0; 17], &[]] {
        let open = |engine: &dyn Engine| {
            let key = engine.aead_key(AeadAlgorithm::Aes128Gcm, &[0; 16])?;
            OpeningKey::new(key, [0; 12]).open((0, 0), b"", &mut [0; 20], tag)
        };
        assert!(matches!(same(open), Some(Error::Open)));
        let mac = |engine: &dyn Engine| engine.mac_key(b"key").verify(&[b"message"], tag);
        assert!(matches!(same(mac), Some(Error::Mac)));
    }
}

/// The DER in a PEM text.
fn pem_body(pem: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(pem).unwrap();
    let digits = text
        .lines()
        .filter(|line| !line.starts_with('-'))
        .flat_map(str::bytes)
        .filter(|byte| *byte != b'=');
    let mut out = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|byte| *byte == digit).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held).unwrap());
            bits &= (1 << held) - 1;
        }
    }
    out
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
