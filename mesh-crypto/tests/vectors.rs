//! Published vectors for HMAC, HKDF, SHA-256 and X25519.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use mesh_crypto::Error;
use mesh_crypto::Prk;
use mesh_crypto::Random;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap();
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::try_from(digit(&pair[0]) << 4 | digit(&pair[1])).unwrap())
        .collect()
}

#[test]
fn sha256_agrees_with_fips_180() {
    let digest = aws_lc().sha256(&[b"a", b"", b"bc"]);
    assert_eq!(
        digest.as_slice(),
        hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
}

#[test]
fn hmac_agrees_with_rfc_4231() {
    let check = |key: Vec<u8>, data: Vec<u8>, tag: &str| {
        let key = aws_lc().mac_key(&key);
        let (left, right) = data.split_at(data.len() / 3);
        assert_eq!(key.sign(&[left, right]).as_slice(), hex(tag));
        key.verify(&[&data], &hex(tag)).unwrap();
        assert!(
            key.verify(&[&data], &hex(tag)[..16]).is_err(),
            "a truncated tag is no tag"
        );
        assert!(key.verify(&[&data], &[]).is_err());
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
        let mut out = vec![0; okm.len() / 2];
        Prk::extract(&*aws_lc(), &hex(salt), &[left, right])
            .expand(&[first, second], &mut out)
            .unwrap();
        assert_eq!(out, hex(okm));
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
    let prk = Prk::extract(&*aws_lc(), b"", &[b"secret"]);
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

#[derive(Debug)]
struct Fixed(Vec<u8>);

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

#[test]
fn x25519_agrees_with_rfc_7748() {
    let key = |scalar| aws_lc().x25519_key(&Fixed(hex(scalar))).unwrap();
    let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    assert_eq!(
        bob.share().as_slice(),
        hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    );
    let alice = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        .try_into()
        .unwrap();
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(bob.agree(&alice).unwrap().expose(), shared);
    // Section 5.2, first vector.
    let key = key("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    let peer = hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
        .try_into()
        .unwrap();
    let shared = key.agree(&peer).unwrap();
    assert_eq!(
        shared.expose(),
        hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    );
}

#[test]
fn x25519_refuses_points_of_low_order() {
    let key = aws_lc().x25519_key(&SystemRandom::new()).unwrap();
    let mut one = [0; 32];
    one[0] = 1;
    assert!(matches!(key.agree(&[0; 32]), Err(Error::Share)));
    assert!(matches!(key.agree(&one), Err(Error::Share)));
}
