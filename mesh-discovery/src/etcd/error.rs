//! Why etcd gave no answer that can be used.

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use tonic::Status;

use crate::error::chain;
use crate::grpc::BoxError;
use crate::name::ServiceName;

/// Why etcd gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The addresses or the TLS settings are no good.
    #[error("the settings for etcd can't be used")]
    Config {
        /// What is wrong with them.
        source: BoxError,
    },

    /// A setting is out of its range.
    #[error("{name} of etcd is out of range: {reason}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What it may be.
        reason: &'static str,
    },

    /// The password can't be had.
    #[error("the password for etcd can't be read")]
    Password {
        /// Why.
        source: BoxError,
    },

    /// No member can be connected to; the last that was tried.
    #[error("no member of etcd can be reached")]
    Unreachable {
        /// Why.
        source: BoxError,
    },

    /// A member took too long.
    #[error("etcd at {server} gave no answer to {call} within {limit:?}")]
    Timeout {
        /// Where it is.
        server: Arc<str>,
        /// What was asked.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },

    /// The connection broke, or the member has no leader and can't answer.
    #[error("etcd at {server} can't answer {call} now: {message}")]
    Unavailable {
        /// Where it is.
        server: Arc<str>,
        /// What was asked.
        call: &'static str,
        /// What it says.
        message: String,
        /// Why, where it is known.
        source: Option<BoxError>,
    },

    /// The user or the password is wrong.
    #[error("etcd at {server} does not take the user and password: {message}")]
    Login {
        /// Where it is.
        server: Arc<str>,
        /// What it says.
        message: String,
    },

    /// The user may not do this; give its role the permission for the keys.
    #[error("etcd does not permit {what}: {message}")]
    Denied {
        /// What was asked.
        what: String,
        /// What it says.
        message: String,
    },

    /// It says no for another reason.
    #[error("etcd at {server} answers {call} with {code:?}: {message}")]
    Refused {
        /// Where it is.
        server: Arc<str>,
        /// What was asked.
        call: &'static str,
        /// The name of gRPC's status.
        code: String,
        /// What it says.
        message: String,
    },

    /// A watch was ended by etcd.
    #[error("etcd ended the watch of service `{service}`: {message}")]
    Canceled {
        /// The service.
        service: ServiceName,
        /// What it says.
        message: String,
    },

    /// There are more keys than are taken.
    #[error("service `{service}` has {count} keys in etcd, more than the limit of {limit}")]
    TooMany {
        /// The service.
        service: ServiceName,
        /// How many.
        count: usize,
        /// How many are taken.
        limit: usize,
    },

    /// An answer is larger than what is taken.
    #[error("what etcd holds of {what} is larger than 16 MiB")]
    TooLarge {
        /// Of what.
        what: String,
    },

    /// The answer is none that etcd may give.
    #[error("etcd gave {what}")]
    Unexpected {
        /// What.
        what: &'static str,
    },

    /// The instance can't be written down.
    #[error("our own endpoint can't be registered")]
    Registration {
        /// What is wrong with it.
        source: crate::error::Error,
    },
}

impl Error {
    /// What `status` says of a `call` to `server`.
    pub(super) fn of(status: &Status, server: &Arc<str>, call: &'static str) -> Self {
        let message = shorten(status.message());
        let server = Arc::clone(server);
        match status.code() {
            Code::Unavailable => Self::Unavailable {
                server,
                call,
                message,
                source: cause(status),
            },
            Code::PermissionDenied => Self::Denied {
                what: call.to_owned(),
                message,
            },
            // Sent by our own side of the call, which counts as it reads.
            Code::OutOfRange if message.contains("decoded message length too large") => {
                Self::TooLarge {
                    what: call.to_owned(),
                }
            }
            Code::Unauthenticated => Self::Login { server, message },
            Code::InvalidArgument if message.contains(WRONG_PASSWORD) => {
                Self::Login { server, message }
            }
            code => Self::Refused {
                server,
                call,
                code: format!("{code:?}"),
                message,
            },
        }
    }

    /// Why the watch of a service was ended.
    pub(super) fn canceled(service: &ServiceName, reason: &str) -> Self {
        let message = shorten(reason);
        if message.contains("permission denied") {
            return Self::Denied {
                what: format!("watching service `{service}`"),
                message,
            };
        }
        Self::Canceled {
            service: service.clone(),
            message,
        }
    }

    /// True when it is about what was asked, so that all else may go well on the same connection.
    pub(super) fn is_of_one_request(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. } | Self::TooMany { .. } | Self::TooLarge { .. }
        )
    }

    /// True when another member may answer.
    pub(super) fn is_of_the_member(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Unavailable { .. })
    }
}

/// True when etcd wants to hear the password again: the token has expired, its server has forgotten it, or users and
/// permissions have changed since. The last two have no status of their own.
pub(super) fn wants_login(status: &Status) -> bool {
    match status.code() {
        Code::Unauthenticated => true,
        Code::InvalidArgument => {
            let message = status.message();
            message.contains("user name is empty")
                || message.contains("revision of auth store is old")
        }
        _ => false,
    }
}

/// The cause of a status, which itself can't leave it.
fn cause(status: &Status) -> Option<BoxError> {
    let source = std::error::Error::source(status)?;
    Some(chain(source).into())
}

/// What a server says is one line for people; whatever stands in its place may say more.
fn shorten(text: &str) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(MAX_MESSAGE).collect()
}

const WRONG_PASSWORD: &str = "authentication failed";
const MAX_MESSAGE: usize = 200;
