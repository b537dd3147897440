//! Fresh shares: X25519, and ML-KEM-768 where the suite has it.

use mesh_crypto::Engine;
use mesh_crypto::Random;
use mesh_crypto::Secret;
use mesh_crypto::agreement::MlKem768Key;
use mesh_crypto::agreement::X25519Key;

use crate::Error;
use crate::wire::Reader;

/// The private halves of the shares that one side made for one purpose. They are dropped with it.
#[derive(Debug)]
pub(crate) struct Shares {
    x25519: X25519Key,
    ml_kem: Option<MlKem768Key>,
}

impl Shares {
    pub(crate) fn new(
        engine: &dyn Engine,
        random: &dyn Random,
        is_hybrid: bool,
    ) -> Result<Self, Error> {
        let x25519 = engine.x25519_key(random).map_err(Error::Crypto)?;
        let ml_kem = is_hybrid
            .then(|| engine.ml_kem_768_key(random))
            .transpose()
            .map_err(Error::Crypto)?;
        Ok(Self { x25519, ml_kem })
    }

    pub(crate) fn share(&self) -> &[u8; 32] {
        self.x25519.share()
    }

    /// The encapsulation key; empty where there is none.
    pub(crate) fn ek(&self) -> &[u8] {
        self.ml_kem.as_ref().map_or(&[], |key| key.ek())
    }

    pub(crate) fn agree(&self, share: &[u8; 32]) -> Result<Secret, Error> {
        self.x25519.agree(share).or(Err(Error::Open))
    }

    /// The secret in a ciphertext to [`ek`](Self::ek); `None` in suites without ML-KEM.
    pub(crate) fn decapsulate(&self, ciphertext: Option<&[u8]>) -> Result<Option<Secret>, Error> {
        match (ciphertext, &self.ml_kem) {
            (None, _) => Ok(None),
            (Some(ciphertext), Some(key)) => {
                let secret = key.decapsulate(ciphertext);
                Ok(Some(secret.or(Err(Error::Open))?))
            }
            (Some(_), None) => Err(Error::Open),
        }
    }
}

/// A ciphertext to the peer's encapsulation key, and the secret in it; nothing in suites without ML-KEM.
pub(crate) fn encapsulate(
    engine: &dyn Engine,
    random: &dyn Random,
    ek: Option<&[u8]>,
) -> Result<(Vec<u8>, Option<Secret>), Error> {
    let Some(ek) = ek else {
        return Ok((Vec::new(), None));
    };
    match engine.ml_kem_768_encapsulate(ek, random) {
        Ok((ciphertext, secret)) => Ok((ciphertext, Some(secret))),
        Err(mesh_crypto::Error::Share) => Err(Error::Open),
        Err(other) => Err(Error::Crypto(other)),
    }
}

/// Reads a field of `len` bytes that is there only in suites with ML-KEM.
pub(crate) fn hybrid_field<'a>(
    reader: &mut Reader<'a>,
    is_hybrid: bool,
    len: usize,
) -> Result<Option<&'a [u8]>, Error> {
    is_hybrid.then(|| reader.take(len)).transpose()
}
