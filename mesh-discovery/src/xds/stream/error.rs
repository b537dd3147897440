//! Why there is no stream.

use std::sync::Arc;

use tonic::Code;
use tonic::Status;

use crate::xds::BoxError;
use crate::xds::wire::Wrong;

#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// No connection.
    #[error("the xds server can't be reached")]
    Connect {
        /// Why.
        source: BoxError,
    },
    /// The token can't be had.
    #[error("the token for the xds server can't be read")]
    Token {
        /// Why.
        source: BoxError,
    },
    /// It speaks something else.
    #[error(
        "{server} serves no aggregated xds of version 3 in this variant; older versions are not spoken"
    )]
    Unimplemented {
        /// Where it is.
        server: Arc<str>,
        /// What it says.
        source: BoxError,
    },
    /// The server refuses it, or it broke.
    #[error("the stream to {server} ended")]
    Status {
        /// Where it is.
        server: Arc<str>,
        /// Why.
        source: BoxError,
    },
    /// The server ended it without a word.
    #[error("{server} ended the stream")]
    Ended {
        /// Where it is.
        server: Arc<str>,
    },
    /// What the server says is no xDS, or more than is taken.
    #[error("{server} sent what is no response: {reason}")]
    Content {
        /// Where it is.
        server: Arc<str>,
        /// What is wrong.
        reason: String,
    },
}

impl StreamError {
    pub(super) fn of_status(server: &Arc<str>, status: Status) -> Self {
        let server = Arc::clone(server);
        match status.code() {
            Code::Unimplemented => Self::Unimplemented {
                server,
                source: status.into(),
            },
            // Of a message that is longer than what is taken.
            Code::OutOfRange => Self::Content {
                server,
                reason: status.message().to_owned(),
            },
            _ => Self::Status {
                server,
                source: status.into(),
            },
        }
    }

    pub(super) fn of_content(server: &Arc<str>, wrong: &Wrong) -> Self {
        Self::Content {
            server: Arc::clone(server),
            reason: wrong.to_string(),
        }
    }

    /// True when a stream that worked before is of no use all the same: the next would bring the same.
    pub(super) fn is_of_content(&self) -> bool {
        matches!(self, Self::Content { .. })
    }

    /// True when there was no connection.
    pub(super) fn is_of_connecting(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}
