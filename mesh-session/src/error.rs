//! What can go wrong, grouped by whose fault it is.

use crate::PeerRefused;

/// Why a handshake or a record did not pass.
///
/// [`Open`](Self::Open) is the one answer to everything that fails once a key is involved. What else there is about a
/// peer's message can be told from its public bytes, or is told to a peer that proved to hold its key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // What a peer sent.
    /// A message or record that is not authentic, not for here, not now, or was seen before. It does not say which.
    #[error("the message cannot be opened")]
    Open,
    /// A message that is not built as the protocol says.
    #[error("the {what} is malformed")]
    Malformed {
        /// Which message or field.
        what: &'static str,
    },
    /// A message of another version of the protocol.
    #[error("version {version} of the protocol is not spoken here, only version 1")]
    Version {
        /// The version it says.
        version: u8,
    },
    /// The peer offers no suite that is accepted here, or chose one that is not.
    #[error("no suite of the peer is accepted here")]
    Suite,
    /// The peer's RSA key is smaller than is accepted here.
    #[error("the peer's rsa key of {bits} bits is smaller than the {minimum} required here")]
    KeyTooSmall {
        /// Its size.
        bits: usize,
        /// The least accepted here.
        minimum: usize,
    },
    /// A first message made for an offer that this responder did not make or no longer honours.
    #[error("the message is for an offer that is not valid here, fetch a new one")]
    StaleOffer,
    /// A first message from too long ago or from the future.
    #[error("the message is {off_by_millis} ms off this clock, check both clocks")]
    Clock {
        /// How far its time is from ours, in milliseconds.
        off_by_millis: u64,
    },
    /// A first message that was seen before.
    #[error("the message was seen before")]
    Replayed,
    /// The full handshake behind a session is too long ago for the session to be resumed.
    #[error("the session is too old to be resumed, make a new one")]
    TooOld,
    /// The verifier did not accept the peer's key or token.
    #[error("the peer was refused")]
    Refused(#[source] PeerRefused),
    /// The stream ended without the record that says so.
    #[error("the stream was cut off before its end")]
    Truncated,

    // Load.
    /// The replay cache is full of first messages that could still be repeated.
    #[error("too many handshakes within the clock tolerance, try again later")]
    Busy,
    /// The session has done its share; make a new one.
    #[error("the session is used up, make a new one")]
    Exhausted,

    // Configuration and misuse.
    /// A setting or an own identity that cannot work.
    #[error("{what}")]
    Config {
        /// What is wrong and what is accepted.
        what: &'static str,
    },
    /// The initiator's and the responder's functions were mixed up.
    #[error("only the initiator begins and only the responder accepts an exchange")]
    Role,
    /// A record after the one that ended the stream, or after one that failed.
    #[error("the stream has ended, nothing more can be sealed")]
    Ended,
    /// A buffer that has no room for the header before the plaintext.
    #[error("the buffer of {got} bytes has no room for the header of {needed}")]
    HeaderRoom {
        /// Bytes of the header.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
    /// Something longer than the protocol can say.
    #[error("{what} of {got} bytes is longer than {limit}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The longest that passes.
        limit: usize,
    },

    // Environment.
    /// The cryptographic engine or the source of randomness failed.
    #[error("a cryptographic operation failed")]
    Crypto(#[source] mesh_crypto::Error),
}
