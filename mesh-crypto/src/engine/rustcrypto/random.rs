//! Between our [`Random`], which can fail, and the generators that the `rsa` crate asks for.

use std::convert::Infallible;

use rsa::rand_core::TryCryptoRng;
use rsa::rand_core::TryRng;
use sha2::Digest;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Error;
use crate::Random;

/// Asks the source each time.
pub(super) struct Asked<'a>(pub(super) &'a dyn Random);

impl TryRng for Asked<'_> {
    type Error = Error;

    fn try_next_u32(&mut self) -> Result<u32, Error> {
        let mut out = [0; 4];
        self.0.fill(&mut out)?;
        Ok(u32::from_le_bytes(out))
    }

    fn try_next_u64(&mut self) -> Result<u64, Error> {
        let mut out = [0; 8];
        self.0.fill(&mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        self.0.fill(out)
    }
}

impl TryCryptoRng for Asked<'_> {}

/// As many bytes as are asked for, out of 32 drawn once: SHA-256 of the seed and a counter.
///
/// Drawing once puts the failure of the source where it can be reported, and lets a source of fixed bytes (a test
/// vector's) end the search for a blinding factor or a prime, which rejects a repeated candidate for ever.
pub(super) struct Stream {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl Stream {
    pub(super) fn draw(random: &dyn Random) -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(seed.as_mut_slice())?;
        Ok(Self { seed, counter: 0 })
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut out = [0; 4];
        self.try_fill_bytes(&mut out)?;
        Ok(u32::from_le_bytes(out))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut out = [0; 8];
        self.try_fill_bytes(&mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(32) {
            let mut hash = Sha256::new();
            hash.update(self.seed.as_slice());
            hash.update(self.counter.to_be_bytes());
            let block: Zeroizing<[u8; 32]> = Zeroizing::new(hash.finalize().into());
            chunk.copy_from_slice(&block[..chunk.len()]);
            self.counter += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

/// What a PSS signature draws, in this order: its salt, which everybody may know, and blinding, which nobody may.
pub(super) struct SaltThenBlinding {
    salt: Option<[u8; 32]>,
    blinding: Stream,
}

impl SaltThenBlinding {
    pub(super) fn draw(random: &dyn Random) -> Result<Self, Error> {
        let mut salt = [0; 32];
        random.fill(&mut salt)?;
        Ok(Self {
            salt: Some(salt),
            blinding: Stream::draw(random)?,
        })
    }
}

impl TryRng for SaltThenBlinding {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.blinding.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.blinding.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        match self.salt.take_if(|salt| salt.len() == out.len()) {
            Some(salt) => out.copy_from_slice(&salt),
            None => self.blinding.try_fill_bytes(out)?,
        }
        Ok(())
    }
}

impl TryCryptoRng for SaltThenBlinding {}
