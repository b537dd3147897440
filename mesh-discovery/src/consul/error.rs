//! Why Consul gave no answer that can be used.

use std::time::Duration;

use super::BoxError;
use crate::tls::TlsError;

/// Why Consul gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not one.
    #[error("{url:?} is no address of consul: {what}")]
    Url {
        /// Its scheme, host and port; the rest may be secret.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// `https` without roots.
    #[error(
        "an https address of consul needs the roots that its certificate leads to; give them as pem text"
    )]
    NoRoots,
    /// TLS can't be set up.
    #[error("consul can't be reached by tls")]
    Tls {
        /// Why.
        #[from]
        source: TlsError,
    },
    /// The token can't be had.
    #[error("the acl token for consul can't be read")]
    Token {
        /// Why.
        source: BoxError,
    },
    /// No connection, or it broke.
    #[error("consul at {url} gives no answer to {path}")]
    Exchange {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// Why.
        source: BoxError,
    },
    /// Consul, or what stands before it, took too long.
    #[error("consul at {url} gave no answer to {path} within {limit:?}")]
    Timeout {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Consul says no.
    #[error("consul at {url} answers {path} with {status}: {message}")]
    Status {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// The HTTP status; 403 where the token may not read this.
        status: u16,
        /// The beginning of what Consul says.
        message: String,
    },
    /// The answer is longer than what is taken.
    #[error("the answer of consul at {url} to {path} is larger than {limit} bytes")]
    TooLarge {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is not what it should be.
    #[error("the answer of consul at {url} to {path} is not understood")]
    Answer {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// Why.
        source: BoxError,
    },
    /// The answer is not of a leader that is alive, and is older than what is accepted.
    #[error(
        "consul at {url} answers {path} from a server that heard of its leader {last_contact:?} ago"
    )]
    Leaderless {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
        /// How old the answer may be; zero where no leader is known at all.
        last_contact: Duration,
    },
    /// A setting of a source or a registration can't be used.
    #[error("{what} of consul can't be used: {reason}")]
    Setting {
        /// Which one.
        what: &'static str,
        /// What a usable value looks like.
        reason: &'static str,
    },
    /// The token may read only a part, and what is missing could be anything.
    #[error(
        "consul at {url} left parts out of {path} that the acl token may not read; give it service:read and node:read"
    )]
    Filtered {
        /// Where it is.
        url: String,
        /// What was asked.
        path: String,
    },
}
