//! One encoding for each key, and no other.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use super::*;

fn element_of(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut out = vec![tag];
    match length {
        [0, short @ 0..=0x7f] => out.push(short),
        [0, long] => out.extend([0x81, long]),
        _ => out.extend([0x82, length[0], length[1]]),
    }
    out.extend(content);
    out
}

fn encode(algorithm: &[u8], unused: u8, modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let numbers = [element_of(INTEGER, modulus), element_of(INTEGER, exponent)].concat();
    let key = [&[unused][..], &element_of(SEQUENCE, &numbers)].concat();
    element_of(
        SEQUENCE,
        &[algorithm, &element_of(BIT_STRING, &key)].concat(),
    )
}

/// An odd modulus of `bits` bits, as an INTEGER's content.
fn modulus(bits: usize) -> Vec<u8> {
    let mut out = vec![0xa5; bits.div_ceil(8)];
    out[0] = u8::MAX >> (out.len() * 8 - bits);
    if out[0] >= 0x80 {
        out.insert(0, 0);
    }
    out
}

fn parse(modulus: &[u8], exponent: &[u8]) -> Result<(), Error> {
    Spki::parse(&encode(RSA_ENCRYPTION, 0, modulus, exponent)).map(|_| ())
}

#[test]
fn reads_the_numbers_of_each_size() {
    for bits in [2048, 3072, 4096] {
        let der = encode(RSA_ENCRYPTION, 0, &modulus(bits), &[1, 0, 1]);
        let spki = Spki::parse(&der).unwrap();
        assert_eq!(spki.bits.bits(), bits);
        assert_eq!(spki.modulus, &modulus(bits)[1..]);
        assert_eq!(spki.exponent, [1, 0, 1]);
    }
}

#[test]
fn another_size_is_named() {
    for bits in [512, 1024, 2047, 2049, 4104, 8192] {
        let result = parse(&modulus(bits), &[1, 0, 1]);
        assert!(
            matches!(result, Err(Error::RsaBits { bits: named }) if named == bits),
            "{bits}"
        );
    }
}

#[test]
fn an_exponent_is_odd_and_neither_small_nor_long() {
    let accepted: [&[u8]; 3] = [
        &[1, 0, 1],
        &[0, 0xff, 0xff, 0xff],
        &[1, 0xff, 0xff, 0xff, 0xff],
    ];
    for exponent in accepted {
        parse(&modulus(2048), exponent).unwrap();
    }
    let refused: [&[u8]; 8] = [
        &[],
        &[0],
        &[3],
        &[0, 0xff, 0xff],
        &[1, 0, 2],
        &[2, 0, 0, 0, 1],
        &[0xff, 0xff, 0xff],
        &[1; 9],
    ];
    for exponent in refused {
        let result = parse(&modulus(2048), exponent);
        assert!(
            matches!(result, Err(Error::KeyRejected { .. })),
            "{exponent:?}"
        );
    }
}

#[test]
fn numbers_are_positive_shortest_and_the_modulus_is_odd() {
    let odd = modulus(2048);
    let mut even = odd.clone();
    *even.last_mut().unwrap() = 2;
    let longer = [&[0], &odd[..]].concat();
    for modulus in [even, longer, odd[1..].to_vec(), vec![]] {
        assert!(matches!(
            parse(&modulus, &[1, 0, 1]),
            Err(Error::KeyRejected { .. })
        ));
    }
    assert!(parse(&odd, &[0, 1, 0, 1]).is_err());
}

#[test]
fn another_encoding_of_the_same_key_is_refused() {
    let (modulus, exponent) = (modulus(2048), [1, 0, 1]);
    let der = encode(RSA_ENCRYPTION, 0, &modulus, &exponent);
    Spki::parse(&der).unwrap();
    let mut pss = RSA_ENCRYPTION.to_vec();
    pss[12] = 0x0a;
    let without_null = &[&[0x30, 0x0b], &RSA_ENCRYPTION[2..13]].concat();
    // The outer length in three bytes where two do.
    let longer = [&[0x30, 0x83, 0x00], &der[2..]].concat();
    let indefinite = [&[0x30, 0x80], &der[4..], &[0, 0]].concat();
    for other in [
        encode(&pss, 0, &modulus, &exponent),
        encode(without_null, 0, &modulus, &exponent),
        encode(RSA_ENCRYPTION, 1, &modulus, &exponent),
        [&der[..], &[0]].concat(),
        der[..der.len() - 1].to_vec(),
        longer,
        indefinite,
    ] {
        assert!(matches!(
            Spki::parse(&other),
            Err(Error::KeyRejected { .. })
        ));
    }
}

#[test]
fn a_private_key_is_wrapped_in_one_way() {
    let wrap = |version: &[u8], after: &[u8]| {
        let key = element_of(OCTET_STRING, b"RSAPrivateKey");
        element_of(SEQUENCE, &[version, RSA_ENCRYPTION, &key, after].concat())
    };
    assert_eq!(
        private_key(&wrap(VERSION_0, b"")).unwrap(),
        b"RSAPrivateKey"
    );
    for other in [
        wrap(&[2, 1, 1], b""),
        wrap(&[2, 2, 0, 0], b""),
        wrap(b"", b""),
        // Attributes.
        wrap(VERSION_0, &[0xa0, 0]),
        [wrap(VERSION_0, b""), vec![0]].concat(),
        element_of(OCTET_STRING, b"RSAPrivateKey"),
        vec![],
    ] {
        assert!(matches!(
            private_key(&other),
            Err(Error::KeyRejected { .. })
        ));
    }
}
