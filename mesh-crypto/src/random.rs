//! Where fresh bytes come from.

use std::fmt::Debug;

use crate::Error;

/// A source of unpredictable bytes.
///
/// What this project draws itself (secrets, nonces of the handshake) comes from here, and what an engine draws to
/// encrypt, sign or make a key share, as far as its library lets it be given: [`engine`](mod@crate::engine) says how
/// far for each. RSA key generation and blinding use the system's generator.
pub trait Random: Send + Sync + Debug {
    /// Fills `out` with fresh bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the source fails; `out` must not be used then.
    fn fill(&self, out: &mut [u8]) -> Result<(), Error>;
}

/// The operating system's generator: through AWS-LC with the feature `aws-lc`, else directly.
#[cfg(any(feature = "aws-lc", feature = "rustcrypto"))]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemRandom;

#[cfg(any(feature = "aws-lc", feature = "rustcrypto"))]
impl SystemRandom {
    /// The generator; it holds no state of its own.
    pub const fn new() -> Self {
        Self
    }
}

#[cfg(feature = "aws-lc")]
impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        aws_lc_rs::rand::fill(out).or(Err(Error::Random))
    }
}

#[cfg(all(feature = "rustcrypto", not(feature = "aws-lc")))]
impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        getrandom::fill(out).or(Err(Error::Random))
    }
}
