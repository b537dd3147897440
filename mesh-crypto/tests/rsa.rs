//! RSA keys: round trips, refusals, encodings.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::sync::LazyLock;

use mesh_crypto::Error;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use proptest::prelude::*;

static KEY: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(&*aws_lc(), RsaBits::B2048).unwrap());
static OTHER: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(&*aws_lc(), RsaBits::B3072).unwrap());

#[test]
fn the_default_size_is_4096() {
    assert_eq!(RsaBits::default().bits(), 4096);
    assert!(matches!(
        RsaBits::from_bits(1024),
        Err(Error::RsaBits { bits: 1024 })
    ));
}

#[test]
fn encrypts_and_signs_at_4096_bits() {
    let key = RsaKeyPair::generate(&*aws_lc(), RsaBits::B4096).unwrap();
    let sealed = key
        .public()
        .encrypt_oaep(b"secret", b"label", &SystemRandom::new())
        .unwrap();
    assert_eq!(sealed.len(), 512);
    assert_eq!(
        key.decrypt_oaep(&sealed, b"label").unwrap().expose(),
        b"secret"
    );
    let signature = key.sign_pss(b"message", &SystemRandom::new()).unwrap();
    assert_eq!(signature.len(), 512);
    key.public().verify_pss(b"message", &signature).unwrap();
}

#[test]
fn reads_back_the_pem_it_writes() {
    let pem = KEY.to_pkcs8_pem().unwrap();
    assert!(pem.expose().starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
    let again = RsaKeyPair::from_pkcs8_pem(&*aws_lc(), &pem).unwrap();
    assert_eq!(again.public(), KEY.public());
    let signature = again.sign_pss(b"m", &SystemRandom::new()).unwrap();
    KEY.public().verify_pss(b"m", &signature).unwrap();
}

#[test]
fn reads_back_the_spki_it_writes() {
    let again = RsaPublicKey::from_spki_der(&*aws_lc(), OTHER.public().spki_der()).unwrap();
    assert_eq!(&again, OTHER.public());
    assert_eq!(again.fingerprint(), OTHER.public().fingerprint());
    assert_eq!(again.bits(), RsaBits::B3072);
}

#[test]
fn only_the_one_encoding_of_a_key_is_accepted() {
    let mut der = KEY.public().spki_der().to_vec();
    der.push(0);
    assert!(matches!(
        RsaPublicKey::from_spki_der(&*aws_lc(), &der),
        Err(Error::KeyRejected { .. })
    ));
    der.truncate(der.len() - 2);
    assert!(matches!(
        RsaPublicKey::from_spki_der(&*aws_lc(), &der),
        Err(Error::KeyRejected { .. })
    ));
    assert!(matches!(
        RsaPublicKey::from_spki_der(&*aws_lc(), b""),
        Err(Error::KeyRejected { .. })
    ));
    let text = Secret::from_slice(b"no pem");
    assert!(matches!(
        RsaKeyPair::from_pkcs8_pem(&*aws_lc(), &text),
        Err(Error::Pem { .. })
    ));
}

#[test]
fn a_label_or_key_that_differs_opens_nothing() {
    let sealed = KEY
        .public()
        .encrypt_oaep(b"secret", b"label", &SystemRandom::new())
        .unwrap();
    assert!(matches!(
        KEY.decrypt_oaep(&sealed, b"other"),
        Err(Error::Open)
    ));
    assert!(matches!(
        KEY.decrypt_oaep(&sealed[1..], b"label"),
        Err(Error::Open)
    ));
    assert!(matches!(
        OTHER.decrypt_oaep(&sealed, b"label"),
        Err(Error::Open)
    ));
}

// threat 28
#[test]
fn what_does_not_decrypt_becomes_a_fresh_secret() {
    let random = SystemRandom::new();
    let open = |sealed: &[u8]| {
        KEY.decrypt_oaep_or_random(sealed, b"label", 32, &random)
            .unwrap()
    };
    let sealed = KEY
        .public()
        .encrypt_oaep(&[5; 32], b"label", &SystemRandom::new())
        .unwrap();
    assert_eq!(open(&sealed).expose(), [5; 32]);
    let mut bad = sealed;
    bad[100] ^= 1;
    assert_eq!(open(&bad).len(), 32);
    assert_ne!(open(&bad), open(&bad));
    let short = KEY
        .public()
        .encrypt_oaep(&[5; 31], b"label", &SystemRandom::new())
        .unwrap();
    assert_eq!(open(&short).len(), 32);
}

#[test]
fn plaintext_that_does_not_fit_is_refused() {
    KEY.public()
        .encrypt_oaep(&[0; 190], b"", &SystemRandom::new())
        .unwrap();
    assert!(matches!(
        KEY.public()
            .encrypt_oaep(&[0; 191], b"", &SystemRandom::new()),
        Err(Error::Length {
            limit: 190,
            got: 191
        })
    ));
}

// threat 20
#[test]
fn debug_shows_size_and_fingerprint_only() {
    let print = KEY.public().fingerprint();
    let public = format!("RsaPublicKey {{ bits: 2048, fingerprint: {print} }}");
    assert_eq!(
        format!("{:?}", *KEY),
        format!("RsaKeyPair {{ public: {public}, .. }}")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_signature_is_for_one_message_and_one_key(
        message in proptest::collection::vec(any::<u8>(), 0..100),
        other in proptest::collection::vec(any::<u8>(), 0..100),
        at in 0_usize..256,
    ) {
        let mut signature = KEY.sign_pss(&message, &SystemRandom::new()).unwrap();
        KEY.public().verify_pss(&message, &signature).unwrap();
        prop_assert!(OTHER.public().verify_pss(&message, &signature).is_err());
        prop_assert_eq!(KEY.public().verify_pss(&other, &signature).is_ok(), message == other);
        signature[at] ^= 1;
        prop_assert!(KEY.public().verify_pss(&message, &signature).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_key(der in proptest::collection::vec(any::<u8>(), 0..400)) {
        assert!(matches!(RsaPublicKey::from_spki_der(&*aws_lc(), &der), Err(Error::KeyRejected { .. })));
        prop_assert!(aws_lc().rsa_from_pkcs8(&Secret::from_slice(&der)).is_err());
    }

    #[test]
    fn a_damaged_spki_is_refused_or_another_key(at in any::<proptest::sample::Index>(), bit in 0_u8..8) {
        let mut der = KEY.public().spki_der().to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        if let Ok(key) = RsaPublicKey::from_spki_der(&*aws_lc(), &der) {
            prop_assert_eq!(key.spki_der(), &der);
            prop_assert_ne!(key.fingerprint(), KEY.public().fingerprint());
        }
    }
}
