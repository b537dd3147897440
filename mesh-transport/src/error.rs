//! What can go wrong between two sockets, and whether the other side may have acted on the request.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;

/// The error type at tower seams.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Everything that this crate can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Environment: a listener could not be opened.
    #[error("could not listen on {address}; is another program using the port?")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why the system refused.
        source: io::Error,
    },
    /// Configuration: a certificate, key or bundle is not usable.
    #[error("{what}")]
    Identity {
        /// What is wrong with which part, and what to do.
        what: String,
        /// The cause, where there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// Peer or environment: no connection to the destination could be made, so nothing was sent.
    #[error("could not connect to {destination}")]
    Connect {
        /// Host and port.
        destination: String,
        /// Why.
        source: BoxError,
    },
    /// Peer: it proved to be somebody else than expected, so nothing was sent.
    #[error(
        "{destination} proved to be {found}, not {expected}; the registry says where, never who"
    )]
    WrongPeer {
        /// Host and port.
        destination: String,
        /// The identity that its certificate carries.
        found: String,
        /// The identity that the service must have.
        expected: String,
    },
    /// Peer: the connection ended before the request was processed, provably.
    #[error("the connection closed before the request was processed")]
    Unprocessed {
        /// Why.
        source: BoxError,
    },
    /// Peer: the exchange failed after the request may have been processed.
    #[error("the exchange failed after the request was sent")]
    Exchange {
        /// Why.
        source: BoxError,
    },
    /// Configuration: the request can't be carried in this form, so nothing was sent.
    #[error("the request can't be sealed")]
    Unsealable {
        /// Why.
        source: BoxError,
    },
    /// Peer: no secure session could be agreed on, so nothing was sent.
    #[error("no secure session with {destination}")]
    Session {
        /// Host and port.
        destination: String,
        /// Why.
        source: BoxError,
    },
}

impl Error {
    /// Whether the other side provably did not act on the request, so that repeating it is safe.
    pub fn is_unprocessed(&self) -> bool {
        !matches!(self, Self::Exchange { .. })
    }

    /// An [`Error::Identity`] without a cause.
    pub fn misfit(what: impl Into<String>) -> Self {
        Self::Identity {
            what: what.into(),
            source: None,
        }
    }

    pub(crate) fn identity(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Identity {
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// The same failure for another caller that waited for it; its causes become text.
    pub(crate) fn repeat(&self) -> Self {
        let text = |source: &BoxError| BoxError::from(chain(source.as_ref()));
        match self {
            Self::Connect {
                destination,
                source,
            } => Self::Connect {
                destination: destination.clone(),
                source: text(source),
            },
            Self::WrongPeer {
                destination,
                found,
                expected,
            } => Self::WrongPeer {
                destination: destination.clone(),
                found: found.clone(),
                expected: expected.clone(),
            },
            Self::Session {
                destination,
                source,
            } => Self::Session {
                destination: destination.clone(),
                source: text(source),
            },
            other => Self::Exchange {
                source: chain(other).into(),
            },
        }
    }

    /// Sorts a failed exchange by what HTTP/2 says of it: a stream that was refused, or that came after the
    /// last one a GOAWAY promises to process, was not processed (RFC 9113 sections 6.8 and 8.7).
    pub(crate) fn exchange(source: hyper::Error) -> Self {
        let refused = find_h2(&source).is_some_and(|cause| {
            cause.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (cause.is_go_away()
                    && cause.is_remote()
                    && cause.reason() == Some(h2::Reason::NO_ERROR))
        });
        let source = Box::new(source);
        if refused {
            Self::Unprocessed { source }
        } else {
            Self::Exchange { source }
        }
    }
}

pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn find_h2<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a h2::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<h2::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
