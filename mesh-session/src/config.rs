//! Local policy: what this side accepts, how long, and how much.

use std::time::Duration;

use mesh_crypto::RsaBits;

use crate::Error;
use crate::Suite;

/// What this side accepts. Nothing of it is negotiated: a peer that does not fit is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Accepted suites, the preferred one first. Default: [`Suite::PREFERRED`], then [`Suite::CLASSIC`].
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
    /// When a session changes its keys.
    pub epoch: EpochLimits,
    /// How long after a full handshake its session, and those that follow it, may be resumed here. Default 1 h; 0
    /// refuses every resumption.
    pub resumption_age: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suites: vec![Suite::PREFERRED, Suite::CLASSIC],
            min_rsa_bits: RsaBits::B2048,
            clock_tolerance: Duration::from_mins(1),
            replay_capacity: 65_536,
            window: 4_096,
            epoch: EpochLimits::default(),
            resumption_age: Duration::from_hours(1),
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

    /// Sets when a session changes its keys.
    #[must_use]
    pub fn with_epoch(self, epoch: EpochLimits) -> Self {
        Self { epoch, ..self }
    }

    /// Sets how long after a full handshake sessions may be resumed.
    #[must_use]
    pub fn with_resumption_age(self, resumption_age: Duration) -> Self {
        Self {
            resumption_age,
            ..self
        }
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
        let most = 1..=MOST;
        if !most.contains(&self.epoch.records) || !most.contains(&self.epoch.blocks) {
            return wrong("epoch.records and epoch.blocks must be from 1 to 2^32");
        }
        if self.epoch.age.is_zero() {
            return wrong("epoch.age must be more than 0");
        }
        Ok(())
    }
}

/// When a session goes on to its next keys, and how long it still takes exchanges under the ones before.
///
/// The sixteen keys before the newest are kept at the most: limits so low that a session goes through more of them while
/// a record is under way lose that record.
///
/// Whichever limit is reached first counts, on whichever side it is reached first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EpochLimits {
    /// Records in both directions. Default and most: 2^32.
    pub records: u64,
    /// AES blocks (16 bytes) in one direction, header, route and tag counted. Default and most: 2^32 (64 GiB); sealing
    /// itself stops at 2^34.
    pub blocks: u64,
    /// Time since the keys came into use. Default 1 h, more than 0.
    pub age: Duration,
    /// How long after a change an exchange may still begin under the keys before. Default 30 s; at least as long as a
    /// record may be under way. Streams that have begun are not bound by it.
    pub overlap: Duration,
}

impl Default for EpochLimits {
    fn default() -> Self {
        Self {
            records: MOST,
            blocks: MOST,
            age: Duration::from_hours(1),
            overlap: Duration::from_secs(30),
        }
    }
}

impl EpochLimits {
    /// Sets the number of records.
    #[must_use]
    pub fn with_records(self, records: u64) -> Self {
        Self { records, ..self }
    }

    /// Sets the number of AES blocks.
    #[must_use]
    pub fn with_blocks(self, blocks: u64) -> Self {
        Self { blocks, ..self }
    }

    /// Sets the age.
    #[must_use]
    pub fn with_age(self, age: Duration) -> Self {
        Self { age, ..self }
    }

    /// Sets the overlap.
    #[must_use]
    pub fn with_overlap(self, overlap: Duration) -> Self {
        Self { overlap, ..self }
    }
}

/// 2^32 blocks are 64 GiB, a quarter of the 2^34 at which `mesh_crypto::aead` stops sealing.
const MOST: u64 = 1 << 32;
