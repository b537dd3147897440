//! The forms that keys and messages take; the messages themselves are read by clients that others wrote.

use super::*;

#[test]
fn lengths_take_their_shortest_form() {
    for (length, head) in [
        (0, vec![4, 0]),
        (127, vec![4, 127]),
        (128, vec![4, 0x81, 128]),
        (255, vec![4, 0x81, 255]),
        (256, vec![4, 0x82, 1, 0]),
        (65_536, vec![4, 0x83, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        element(&mut out, 4, &vec![0; length]);
        assert_eq!(out.get(..head.len()), Some(&*head), "{length}");
        assert_eq!(out.len(), head.len() + length);
    }
    for (number, expected) in [
        (0, vec![0]),
        (127, vec![127]),
        (128, vec![0x80, 1]),
        (300, vec![0xac, 2]),
    ] {
        let mut out = Vec::new();
        varint(&mut out, number);
        assert_eq!(out, expected);
    }
}

#[test]
fn a_sec1_key_becomes_the_pkcs8_that_the_library_reads() {
    // An EC key of each curve, without the optional fields.
    for (length, algorithm) in [(32_u8, P256), (48, P384)] {
        let mut fields = vec![0x02, 0x01, 0x01, 0x04, length];
        fields.extend((0..length).map(|byte| byte + 1));
        let mut sec1 = Vec::new();
        element(&mut sec1, 0x30, &fields);
        assert_eq!(curve(&sec1), Some(algorithm));
        let key = PrivateKeyDer::Sec1(sec1.clone().into());
        let wrapped = pkcs8(&key).unwrap();
        let read = PrivateKeyDer::Pkcs8(wrapped.to_vec().into());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let signer = provider.key_provider.load_private_key(read).unwrap();
        let same = provider.key_provider.load_private_key(key).unwrap();
        assert_eq!(
            signer.public_key().map(|key| key.to_vec()),
            same.public_key().map(|key| key.to_vec())
        );
    }
    assert!(curve(&[0x30, 0x05, 0x02, 0x01, 0x01, 0x04, 21]).is_none());
}
