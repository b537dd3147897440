//! Where fresh bytes come from.

use std::fmt::Debug;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;

use crate::Error;

/// A source of unpredictable bytes.
///
/// Everything that this project draws itself (secrets, X25519 scalars, nonces of the handshake) comes from here. RSA
/// key generation, OAEP seeds and PSS salts come from the engine's own generator, which its interface does not open.
pub trait Random: Send + Sync + Debug {
    /// Fills `out` with fresh bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the source fails; `out` must not be used then.
    fn fill(&self, out: &mut [u8]) -> Result<(), Error>;
}

/// The operating system's generator, through the engine.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemRandom;

impl SystemRandom {
    /// The generator; it holds no state of its own.
    pub const fn new() -> Self {
        Self
    }
}

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        rand::fill(out).map_err(|Unspecified| Error::Random)
    }
}
