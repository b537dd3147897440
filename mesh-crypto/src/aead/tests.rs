//! Published vectors, and that no nonce is used twice.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
#[cfg(feature = "aws-lc")]
use crate::engine::aws_lc as engine;
#[cfg(not(feature = "aws-lc"))]
use crate::engine::rustcrypto as engine;
use crate::hex::decode;

fn key(algorithm: AeadAlgorithm, hex: &str) -> AeadKey {
    engine().aead_key(algorithm, &decode(hex).unwrap()).unwrap()
}

/// The vectors give the whole nonce: as IV with number and index 0 it is used unchanged.
fn check(algorithm: AeadAlgorithm, [k, iv, aad, plaintext, ciphertext, tag]: [&str; 6]) {
    let iv: [u8; 12] = decode(iv).unwrap().try_into().unwrap();
    let aad = decode(aad).unwrap();
    let mut text = decode(plaintext).unwrap();
    let mut stream = Arc::new(SealingKey::counting(key(algorithm, k), iv))
        .next_stream()
        .unwrap();
    let made = stream.seal(&aad, &mut text).unwrap();
    assert_eq!(text, decode(ciphertext).unwrap());
    assert_eq!(made.as_slice(), decode(tag).unwrap());
    OpeningKey::new(key(algorithm, k), iv)
        .open((0, 0), &aad, &mut text, &made)
        .unwrap();
    assert_eq!(text, decode(plaintext).unwrap());
}

const PLAIN: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
const AAD: &str = "feedfacedeadbeeffeedfacedeadbeefabaddad2";

// McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test cases 4, 10, 13, 14 and 16.
#[test]
fn agrees_with_the_published_vectors() {
    check(
        AeadAlgorithm::Aes128Gcm,
        [
            "feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            AAD,
            PLAIN,
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47",
        ],
    );
    check(
        AeadAlgorithm::Aes192Gcm,
        [
            "feffe9928665731c6d6a8f9467308308feffe9928665731c",
            "cafebabefacedbaddecaf888",
            AAD,
            PLAIN,
            "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710",
            "2519498e80f1478f37ba55bd6d27618c",
        ],
    );
    let zero = "0000000000000000000000000000000000000000000000000000000000000000";
    let nonce = "000000000000000000000000";
    check(
        AeadAlgorithm::Aes256Gcm,
        [zero, nonce, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"],
    );
    check(
        AeadAlgorithm::Aes256Gcm,
        [
            zero,
            nonce,
            "",
            "00000000000000000000000000000000",
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ],
    );
    check(
        AeadAlgorithm::Aes256Gcm,
        [
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            AAD,
            PLAIN,
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ],
    );
}

fn sealing(iv: [u8; 12]) -> Arc<SealingKey> {
    Arc::new(SealingKey::counting(
        engine()
            .aead_key(AeadAlgorithm::Aes256Gcm, &[7; 32])
            .unwrap(),
        iv,
    ))
}

// threat 27
#[test]
fn a_dropped_stream_never_gives_its_number_back() {
    let key = sealing([0; 12]);
    drop(key.next_stream().unwrap());
    assert_eq!(key.next_stream().unwrap().number(), 1);
}

// threat 27
#[test]
fn a_claimed_number_is_granted_once() {
    let key = engine()
        .aead_key(AeadAlgorithm::Aes128Gcm, &[7; 16])
        .unwrap();
    let key = Arc::new(SealingKey::claiming(key, [0; 12], 64));
    drop(key.claim_stream(3).unwrap());
    assert!(matches!(
        key.claim_stream(3),
        Err(Error::Replayed { number: 3 })
    ));
    assert!(matches!(key.next_stream(), Err(Error::Numbering)));
    assert!(matches!(key.claim_stream(u64::MAX), Err(Error::Exhausted)));
}

// threat 27
#[test]
fn stops_when_the_index_is_spent() {
    let key = sealing([0; 12]);
    let mut stream = key.next_stream().unwrap();
    stream.index = u64::from(u32::MAX);
    stream.seal(b"", &mut [0; 4]).unwrap();
    assert!(matches!(
        stream.seal(b"", &mut [0; 4]),
        Err(Error::Exhausted)
    ));
}

// threat 27
#[test]
fn stops_when_the_key_is_spent() {
    let key = sealing([0; 12]);
    let mut stream = key.next_stream().unwrap();
    key.spent.spend(numbers::BLOCK_LIMIT).unwrap();
    assert!(matches!(
        stream.seal(b"", &mut [0; 4]),
        Err(Error::Exhausted)
    ));
}

// threat 27
#[test]
fn a_successor_and_a_key_that_comes_back_grant_no_number_twice() {
    let fresh = |byte| {
        engine()
            .aead_key(AeadAlgorithm::Aes256Gcm, &[byte; 32])
            .unwrap()
    };
    let first = sealing([0; 12]);
    let mut stream = first.next_stream().unwrap();
    stream.seal(b"", &mut [0; 4]).unwrap();
    let second = Arc::new(first.successor(fresh(8), [1; 12]));
    assert_eq!(second.next_stream().unwrap().number(), 1);
    stream.continue_under(&second).unwrap();
    assert_eq!(stream.next_index().unwrap(), 1);
    stream.seal(b"", &mut [0; 4]).unwrap();
    assert_eq!(second.blocks(), 2);
    drop(stream);
    let parked = Arc::into_inner(second).unwrap().park();
    let again = Arc::new(parked.unpark(fresh(8), [1; 12]));
    assert_eq!(again.next_stream().unwrap().number(), 2);
    assert_eq!(again.blocks(), 2);
    let stranger = sealing([0; 12]);
    let mut stream = first.next_stream().unwrap();
    assert!(matches!(
        stream.continue_under(&stranger),
        Err(Error::Numbering)
    ));
}

#[test]
fn a_key_of_the_wrong_length_is_refused() {
    let made = engine().aead_key(AeadAlgorithm::Aes192Gcm, &[0; 32]);
    assert!(matches!(
        made,
        Err(Error::KeyLength {
            expected: 24,
            got: 32
        })
    ));
}

proptest! {
    #[test]
    fn nonces_are_distinct_for_distinct_positions(
        iv in any::<[u8; 12]>(),
        positions in proptest::collection::hash_set((0_u64..40, 0_u32..40), 0..200),
    ) {
        let nonces: HashSet<_> = positions.iter().map(|(number, index)| nonce(&iv, *number, *index)).collect();
        prop_assert_eq!(nonces.len(), positions.len());
    }

    #[test]
    fn any_flipped_bit_is_refused(
        text in proptest::collection::vec(any::<u8>(), 1..80),
        aad in proptest::collection::vec(any::<u8>(), 0..20),
        at in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut sealed = text.clone();
        let tag = sealing([9; 12]).next_stream().unwrap().seal(&aad, &mut sealed).unwrap();
        let key = || OpeningKey::new(engine().aead_key(AeadAlgorithm::Aes256Gcm, &[7; 32]).unwrap(), [9; 12]);
        let mut all: Vec<u8> = sealed.iter().chain(&tag).chain(&aad).copied().collect();
        let at = at.index(all.len());
        all[at] ^= 1 << bit;
        let (body, rest) = all.split_at_mut(sealed.len());
        let (bad_tag, bad_aad) = rest.split_at(16);
        prop_assert!(key().open((0, 0), bad_aad, body, bad_tag).is_err());
        prop_assert!(key().open((0, 1), &aad, &mut sealed.clone(), &tag).is_err());
        prop_assert!(key().open((1, 0), &aad, &mut sealed.clone(), &tag).is_err());
        key().open((0, 0), &aad, &mut sealed, &tag).unwrap();
        prop_assert_eq!(sealed, text);
    }
}
