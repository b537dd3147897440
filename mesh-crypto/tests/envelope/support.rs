//! Keys, engines, and randomness that is known.

use std::sync::Arc;

use mesh_crypto::Engine;
use mesh_crypto::Error;
use mesh_crypto::Prk;
use mesh_crypto::Random;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::aead::SealingKey;
use mesh_crypto::envelope::CHUNK_LEN;
use parking_lot::Mutex;

/// Every engine that is compiled in.
pub(crate) fn engines() -> Vec<Arc<dyn Engine>> {
    vec![
        #[cfg(feature = "aws-lc")]
        mesh_crypto::engine::aws_lc(),
        #[cfg(feature = "rustcrypto")]
        mesh_crypto::engine::rustcrypto(),
    ]
}

/// Every engine to seal with, with every engine to open with.
pub(crate) fn pairs() -> Vec<[Arc<dyn Engine>; 2]> {
    let pair = |first: Arc<dyn Engine>| {
        engines()
            .into_iter()
            .map(move |second| [Arc::clone(&first), second])
    };
    engines().into_iter().flat_map(pair).collect()
}

/// The key of this name in the engine's hands.
pub(crate) fn key(engine: &dyn Engine, name: &str) -> RsaKeyPair {
    let text = match name {
        "alice-2048" => include_str!("../data/keys/alice-2048.pem"),
        "alice-3072" => include_str!("../data/keys/alice-3072.pem"),
        "alice-4096" => include_str!("../data/keys/alice-4096.pem"),
        "bob-2048" => include_str!("../data/keys/bob-2048.pem"),
        "bob-3072" => include_str!("../data/keys/bob-3072.pem"),
        "bob-4096" => include_str!("../data/keys/bob-4096.pem"),
        "carol-2048" => include_str!("../data/keys/carol-2048.pem"),
        other => unreachable!("{other}"),
    };
    RsaKeyPair::from_pkcs8_pem(engine, &Secret::from_slice(text.as_bytes())).unwrap()
}

/// The bytes `SHA-256(seed ‖ 0) ‖ SHA-256(seed ‖ 1) ‖ …`, the numbers in eight bytes, taken one after the other.
#[derive(Debug)]
pub(crate) struct Known {
    engine: Arc<dyn Engine>,
    seed: String,
    taken: Mutex<u64>,
}

impl Known {
    pub(crate) fn new(engine: &Arc<dyn Engine>, seed: &str) -> Self {
        Self {
            engine: Arc::clone(engine),
            seed: seed.to_owned(),
            taken: Mutex::new(0),
        }
    }
}

impl Random for Known {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        let mut taken = self.taken.lock();
        for byte in out {
            let number = (*taken / 32).to_be_bytes();
            let block = self.engine.sha256(&[self.seed.as_bytes(), &number]);
            *byte = block[usize::try_from(*taken % 32).unwrap()];
            *taken += 1;
        }
        Ok(())
    }
}

/// Data whose byte number `n` is `n mod 251`.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// The parts of an envelope as `ENVELOPE.md` cuts it.
pub(crate) struct Parts<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) chunks: Vec<&'a [u8]>,
}

/// Cuts an envelope between keys of these lengths of modulus.
pub(crate) fn cut(envelope: &[u8], to: usize, from: usize) -> Parts<'_> {
    let (header, rest) = envelope.split_at(74 + 2 + to + 32 + 2 + from);
    Parts {
        header,
        chunks: rest.chunks(CHUNK_LEN + 16).collect(),
    }
}

/// What comes of the secret, computed as `ENVELOPE.md` says: transcript hash, key, IV, commitment.
pub(crate) struct Derived {
    pub(crate) transcript: [u8; 32],
    pub(crate) key: [u8; 32],
    pub(crate) iv: [u8; 12],
    pub(crate) commitment: [u8; 32],
}

/// `before` is the header up to the commitment.
pub(crate) fn derive(engine: &dyn Engine, secret: &[u8], aad: &[u8], before: &[u8]) -> Derived {
    let transcript = engine.sha256(&[b"mesh-envelope v1 header\0", &engine.sha256(&[aad]), before]);
    let prk = Prk::extract(engine, &transcript, &[secret]);
    let (mut keys, mut commitment) = ([0; 44], [0; 32]);
    prk.expand(&[b"mesh-envelope v1 keys\0"], &mut keys)
        .unwrap();
    prk.expand(&[b"mesh-envelope v1 commitment\0"], &mut commitment)
        .unwrap();
    Derived {
        transcript,
        key: keys[..32].try_into().unwrap(),
        iv: keys[32..].try_into().unwrap(),
        commitment,
    }
}

/// Seals these chunks, each with its flag.
pub(crate) fn seal_chunks(engine: &dyn Engine, keys: &Derived, chunks: &[(u8, &[u8])]) -> Vec<u8> {
    let key = engine
        .aead_key(mesh_crypto::AeadAlgorithm::Aes256Gcm, &keys.key)
        .unwrap();
    let mut stream = Arc::new(SealingKey::counting(key, keys.iv))
        .next_stream()
        .unwrap();
    let mut out = Vec::new();
    for (flag, chunk) in chunks {
        let mut text = chunk.to_vec();
        let tag = stream.seal(&[*flag], &mut text).unwrap();
        out.extend_from_slice(&text);
        out.extend_from_slice(&tag);
    }
    out
}
