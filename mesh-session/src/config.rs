//! Local policy: what this side accepts, how long, and how much.

use std::time::Duration;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::RsaBits;

use crate::Error;

/// What this side accepts. Nothing of it is negotiated: a peer that does not fit is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Accepted suites, the preferred one first. Default: AES-256-GCM alone.
    pub suites: Vec<Suite>,
    /// The smallest RSA key accepted of a peer. Default 2048 bits.
    pub min_rsa_bits: RsaBits,
    /// How far a first message's time may be from our clock, either way. Default 60 s, at most 1 h. Wider is kinder to
    /// bad clocks and keeps more entries in the replay cache.
    pub clock_tolerance: Duration,
    /// First messages remembered so that they cannot be repeated, for two to four times the clock tolerance (longer only
    /// while no others come). Each costs about 64 bytes. When full, handshakes are refused. Default 65,536, at least 2.
    pub replay_capacity: usize,
    /// How far below the newest exchange of a session another may still arrive. Default 4,096, from 1,024 to 65,536;
    /// an eighth of it in bytes per session at the responder.
    pub window: u32,
    /// AES blocks (16 bytes) in one direction after which a session begins no more exchanges. Default 2^32 (64 GiB), at
    /// most that; those under way may go on to the hard stop at 2^34.
    pub max_blocks: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suites: vec![Suite::X25519Aes256GcmHmacSha256],
            min_rsa_bits: RsaBits::B2048,
            clock_tolerance: Duration::from_mins(1),
            replay_capacity: 65_536,
            window: 4_096,
            max_blocks: MAX_BLOCKS,
        }
    }
}

impl Config {
    /// Sets the accepted suites, the preferred one first.
    #[must_use]
    pub fn with_suites(self, suites: Vec<Suite>) -> Self {
        Self { suites, ..self }
    }

    /// Sets the smallest RSA key accepted of a peer.
    #[must_use]
    pub fn with_min_rsa_bits(self, min_rsa_bits: RsaBits) -> Self {
        Self {
            min_rsa_bits,
            ..self
        }
    }

    /// Sets how far a first message's time may be from our clock.
    #[must_use]
    pub fn with_clock_tolerance(self, clock_tolerance: Duration) -> Self {
        Self {
            clock_tolerance,
            ..self
        }
    }

    /// Sets how many first messages are remembered.
    #[must_use]
    pub fn with_replay_capacity(self, replay_capacity: usize) -> Self {
        Self {
            replay_capacity,
            ..self
        }
    }

    /// Sets the replay window over exchanges.
    #[must_use]
    pub fn with_window(self, window: u32) -> Self {
        Self { window, ..self }
    }

    /// Sets how many AES blocks a session carries in one direction.
    #[must_use]
    pub fn with_max_blocks(self, max_blocks: u64) -> Self {
        Self { max_blocks, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what| Err(Error::Config { what });
        let is_repeated =
            |(at, suite): (usize, &Suite)| self.suites.iter().take(at).any(|other| other == suite);
        if self.suites.is_empty() || self.suites.iter().enumerate().any(is_repeated) {
            return wrong("suites must name at least one suite, and none twice");
        }
        if self.clock_tolerance.is_zero() || self.clock_tolerance > Duration::from_hours(1) {
            return wrong("clock_tolerance must be more than 0 and at most 1 h");
        }
        if self.replay_capacity < 2 {
            return wrong("replay_capacity must be at least 2");
        }
        if !(1_024..=65_536).contains(&self.window) {
            return wrong("window must be from 1024 to 65536");
        }
        if !(1..=MAX_BLOCKS).contains(&self.max_blocks) {
            return wrong("max_blocks must be from 1 to 2^32");
        }
        Ok(())
    }
}

/// How keys are agreed and how records are protected. On the wire: two bytes, the first for the agreement (0:
/// X25519), the second for the records.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Suite {
    /// RSA-OAEP and X25519; AES-256-GCM, then HMAC-SHA256 over all of it.
    X25519Aes256GcmHmacSha256,
    /// The same with AES-192-GCM.
    X25519Aes192GcmHmacSha256,
    /// The same with AES-128-GCM.
    X25519Aes128GcmHmacSha256,
}

impl Suite {
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::X25519Aes256GcmHmacSha256 => 0x0001,
            Self::X25519Aes192GcmHmacSha256 => 0x0002,
            Self::X25519Aes128GcmHmacSha256 => 0x0003,
        }
    }

    pub(crate) fn from_code(code: u16) -> Option<Self> {
        let all = [
            Self::X25519Aes256GcmHmacSha256,
            Self::X25519Aes192GcmHmacSha256,
            Self::X25519Aes128GcmHmacSha256,
        ];
        all.into_iter().find(|suite| suite.code() == code)
    }

    pub(crate) const fn aead(self) -> AeadAlgorithm {
        match self {
            Self::X25519Aes256GcmHmacSha256 => AeadAlgorithm::Aes256Gcm,
            Self::X25519Aes192GcmHmacSha256 => AeadAlgorithm::Aes192Gcm,
            Self::X25519Aes128GcmHmacSha256 => AeadAlgorithm::Aes128Gcm,
        }
    }
}

/// 64 GiB, a quarter of the 2^34 blocks at which `mesh_crypto::aead` stops sealing.
const MAX_BLOCKS: u64 = 1 << 32;
