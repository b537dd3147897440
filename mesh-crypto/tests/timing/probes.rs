//! Ciphertexts that are wrong in one way each.

use mesh_crypto::Engine;
use mesh_crypto::Random as _;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::SystemRandom;
use rsa::BoxedUint;
use rsa::hazmat::rsa_encrypt;
use rsa::pkcs8::DecodePublicKey as _;

/// What is wrong with a ciphertext.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Class {
    Valid,
    WrongLabel,
    BadFirstByte,
    BadSeparator,
    ZeroPadding,
    WrongLength,
    Random,
    /// Not below the modulus, as everybody can see: the control, which is refused before the private key is used.
    AboveModulus,
}

impl Class {
    /// Those that only the private key can tell apart.
    pub(crate) const SECRET: [Self; 7] = [
        Self::Valid,
        Self::WrongLabel,
        Self::BadFirstByte,
        Self::BadSeparator,
        Self::ZeroPadding,
        Self::WrongLength,
        Self::Random,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::WrongLabel => "wrong label",
            Self::BadFirstByte => "bad first byte",
            Self::BadSeparator => "bad separator",
            Self::ZeroPadding => "zero padding",
            Self::WrongLength => "wrong length",
            Self::Random => "random",
            Self::AboveModulus => "above modulus",
        }
    }
}

pub(crate) const LABEL: &[u8] = b"mesh-session v1 secret to responder";
pub(crate) const SECRET_LEN: usize = 32;

/// Makes ciphertexts to one key from encoded messages of any form (RFC 8017 section 7.1.1).
pub(crate) struct Prober<'a> {
    engine: &'a dyn Engine,
    key: rsa::RsaPublicKey,
    len: usize,
}

impl<'a> Prober<'a> {
    pub(crate) fn new(engine: &'a dyn Engine, key: &RsaPublicKey) -> Self {
        Self {
            engine,
            key: rsa::RsaPublicKey::from_public_key_der(key.spki_der()).unwrap(),
            len: key.bits().modulus_len(),
        }
    }

    pub(crate) fn probe(&self, class: Class) -> Vec<u8> {
        if class == Class::AboveModulus {
            return vec![0xff; self.len];
        }
        let encoded = match class {
            Class::Random => {
                let mut encoded = random(self.len);
                // Below any modulus of this size.
                encoded[0] &= 0x7f;
                encoded
            }
            other => self.encoded(other),
        };
        let bits = u32::try_from(self.len * 8).unwrap();
        let number = BoxedUint::from_be_slice(&encoded, bits).unwrap();
        let bytes = rsa_encrypt(&self.key, &number).unwrap().to_be_bytes();
        bytes[bytes.len() - self.len..].to_vec()
    }

    fn encoded(&self, class: Class) -> Vec<u8> {
        let label: &[u8] = match class {
            Class::WrongLabel => b"another label",
            _ => LABEL,
        };
        let data_len = self.len - 32 - 1;
        let most = data_len - 32 - 1;
        let message = match class {
            Class::WrongLength => random(most),
            _ => random(SECRET_LEN),
        };
        let mut data = self.engine.sha256(&[label]).to_vec();
        data.resize(data_len - message.len() - 1, 0);
        data.push(match class {
            Class::BadSeparator => 2,
            _ => 1,
        });
        data.extend_from_slice(&message);
        if class == Class::ZeroPadding {
            data[32..].fill(0);
        }
        let mut seed = random(32);
        self.mask(&seed, &mut data);
        self.mask(&data, &mut seed);
        let first = u8::from(class == Class::BadFirstByte);
        [&[first], seed.as_slice(), &data].concat()
    }

    /// MGF1 with SHA-256 (RFC 8017 appendix B.2.1), over `out`.
    fn mask(&self, seed: &[u8], out: &mut [u8]) {
        for (counter, chunk) in (0_u32..).zip(out.chunks_mut(32)) {
            let mask = self.engine.sha256(&[seed, &counter.to_be_bytes()]);
            for (byte, mask) in chunk.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
    }
}

fn random(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    SystemRandom::new().fill(&mut out).unwrap();
    out
}
