//! Randomness that is the same in every run, and remembers what it gave.

use mesh_crypto::Error;
use mesh_crypto::Random;
use mesh_crypto::engine::rustcrypto;
use parking_lot::Mutex;

/// The bytes of `SHA-256(seed ‖ n)` for n = 0, 1, 2 …
#[derive(Debug)]
pub(crate) struct Scripted {
    seed: &'static str,
    given: Mutex<(u64, Vec<Vec<u8>>)>,
}

impl Scripted {
    pub(crate) fn new(seed: &'static str) -> Self {
        Self {
            seed,
            given: Mutex::default(),
        }
    }

    /// What was given since the last call, in order.
    pub(crate) fn given(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.given.lock().1)
    }
}

impl Random for Scripted {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        let engine = rustcrypto();
        let mut given = self.given.lock();
        for chunk in out.chunks_mut(32) {
            let block = engine.sha256(&[self.seed.as_bytes(), &given.0.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
            given.0 += 1;
        }
        given.1.push(out.to_vec());
        Ok(())
    }
}

/// Gives the same bytes again and again: a private value that is known.
#[derive(Debug)]
pub(crate) struct Known(pub(crate) Vec<u8>);

impl Random for Known {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}
