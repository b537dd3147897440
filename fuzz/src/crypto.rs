//! Keys and their names, on both engines.

use mesh_crypto::Fingerprint;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;
use mesh_crypto::pem;

/// A `SubjectPublicKeyInfo`: both engines read it, as the same key and as these very bytes, or neither does.
pub fn spki(data: &[u8]) {
    let read = [aws_lc(), rustcrypto()].map(|engine| RsaPublicKey::from_spki_der(&*engine, data));
    match read {
        [Ok(one), Ok(other)] => {
            assert_eq!(one.fingerprint(), other.fingerprint());
            assert_eq!(one.bits(), other.bits());
            assert_eq!((one.spki_der(), other.spki_der()), (data, data));
        }
        [Err(one), Err(other)] => assert_eq!(one.to_string(), other.to_string()),
        [one, other] => panic!("one engine reads it: {one:?}, {other:?}"),
    }
}

/// A public key as text.
pub fn public_key_pem(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read = [aws_lc(), rustcrypto()].map(|engine| pem::decode_public(&*engine, text));
    match read {
        [Ok(one), Ok(other)] => {
            assert_eq!(one.fingerprint(), other.fingerprint());
            let written = pem::encode_public(&one);
            let again = pem::decode_public(&*aws_lc(), &written).unwrap();
            assert_eq!(again, one);
        }
        [Err(one), Err(other)] => assert_eq!(one.to_string(), other.to_string()),
        [one, other] => panic!("one engine reads it: {one:?}, {other:?}"),
    }
}

/// A private key, as DER and as text: who reads it reads the same key, and writes it as it was.
pub fn private_key(data: &[u8]) {
    let text = if data.starts_with(b"-----") {
        Secret::from_slice(data)
    } else {
        Secret::from_slice(&armoured(data))
    };
    let read = [aws_lc(), rustcrypto()].map(|engine| RsaKeyPair::from_pkcs8_pem(&*engine, &text));
    match read {
        [Ok(one), Ok(other)] => {
            assert_eq!(one.public().fingerprint(), other.public().fingerprint());
            assert_eq!(one.to_pkcs8_pem().unwrap(), other.to_pkcs8_pem().unwrap());
        }
        [Err(_), Err(_)] => {}
        [one, other] => panic!("one engine reads it: {one:?}, {other:?}"),
    }
}

/// DER as PEM.
pub(crate) fn armoured(der: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
    for group in der.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[usize::try_from(word >> (18 - 6 * at) & 63).unwrap()];
            out.push(if at <= group.len() { letter } else { b'=' });
        }
    }
    out.extend_from_slice(b"\n-----END PRIVATE KEY-----\n");
    out
}

/// The text of a fingerprint: what is read is written as it was.
pub fn fingerprint(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(print) = text.parse::<Fingerprint>()
    {
        assert_eq!(print.to_string(), text);
    }
}
