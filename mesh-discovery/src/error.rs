//! What can be wrong with a list of endpoints or a configuration.

use crate::host::HostError;
use crate::name::ServiceName;

/// Why a list of endpoints or a configuration is refused, as a whole.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// One service has more endpoints than one list holds.
    #[error(
        "{count} endpoints for one service are more than the limit of {limit}; split the service"
    )]
    TooManyEndpoints {
        /// How many were given.
        count: usize,
        /// How many are accepted.
        limit: usize,
    },

    /// A source was given more endpoints, over all services, than it holds.
    #[error("{count} endpoints in one source are more than the limit of {limit}; split the source")]
    SourceTooLarge {
        /// How many were given.
        count: usize,
        /// How many are accepted.
        limit: usize,
    },

    /// A source was given more services than it holds.
    #[error("{count} services in one source are more than the limit of {limit}; split the source")]
    TooManyServices {
        /// How many there would be.
        count: usize,
        /// How many are accepted.
        limit: usize,
    },

    /// Two endpoints of one service have the same id.
    #[error("endpoint id `{id}` appears twice in one service; give each endpoint an id of its own")]
    DuplicateId {
        /// The id.
        id: String,
    },

    /// A field of an endpoint has a value that cannot be used.
    #[error("endpoint `{endpoint}` has an unusable {field}: {reason}")]
    Field {
        /// The id of the endpoint, escaped and shortened.
        endpoint: String,
        /// Which field.
        field: &'static str,
        /// What a usable value looks like.
        reason: &'static str,
    },

    /// An endpoint is what the caller does not let in.
    #[error("endpoint `{endpoint}` is not let in: {reason}")]
    NotAdmitted {
        /// The id of the endpoint, escaped and shortened.
        endpoint: String,
        /// Why.
        reason: String,
    },

    /// The host of an endpoint is none.
    #[error("endpoint `{endpoint}` has an unusable host")]
    Host {
        /// The id of the endpoint, escaped and shortened.
        endpoint: String,
        /// What is wrong with it.
        source: HostError,
    },

    /// An endpoint is not what the registry's format says.
    #[error("endpoint `{endpoint}` can't be read: {reason}")]
    Unreadable {
        /// The id of the endpoint, escaped and shortened.
        endpoint: String,
        /// What is wrong, escaped and shortened.
        reason: String,
    },

    /// The endpoints of a service in a static list were refused.
    #[error("could not accept the endpoints of service `{service}`")]
    Service {
        /// Which service.
        service: ServiceName,
        /// What is wrong with them.
        source: Box<Self>,
    },

    /// A health check setting cannot be used.
    #[error("health check {field} is unusable: {reason}")]
    HealthConfig {
        /// Which setting.
        field: &'static str,
        /// What a usable value looks like.
        reason: &'static str,
    },

    /// A setting of what is believed of a registry cannot be used.
    #[error("{field} of what is believed is unusable: {reason}")]
    Belief {
        /// Which setting.
        field: &'static str,
        /// What a usable value looks like.
        reason: &'static str,
    },
}

impl Error {
    /// The field `field` of the endpoint with that id can't be used; `reason` says what could. For who writes a source.
    pub fn field(id: &str, field: &'static str, reason: &'static str) -> Self {
        Self::Field {
            endpoint: shown(id, SHOWN_ID_CHARS),
            field,
            reason,
        }
    }

    /// The endpoint with that id is not let in. For who writes an [`Admission`](crate::Admission).
    pub fn not_admitted(id: &str, reason: impl Into<String>) -> Self {
        Self::NotAdmitted {
            endpoint: shown(id, SHOWN_ID_CHARS),
            reason: reason.into(),
        }
    }

    /// The host of the endpoint with that id can't be used. For who writes a source.
    pub fn host(id: &str, source: HostError) -> Self {
        Self::Host {
            endpoint: shown(id, SHOWN_ID_CHARS),
            source,
        }
    }

    /// The endpoint with that id is not what the registry's format says. For who writes a source.
    pub fn unreadable(id: &str, error: &dyn std::error::Error) -> Self {
        Self::Unreadable {
            endpoint: shown(id, SHOWN_ID_CHARS),
            reason: shown(&error.to_string(), SHOWN_REASON_CHARS),
        }
    }
}

/// An error message names the endpoint, but a hostile id must not fill the log.
fn shown(text: &str, limit: usize) -> String {
    text.chars()
        .take(limit)
        .flat_map(char::escape_default)
        .collect()
}

const SHOWN_ID_CHARS: usize = 64;
const SHOWN_REASON_CHARS: usize = 200;

/// An error with all its causes, on one bounded line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_CHAIN)
        .collect()
}

/// What a registry says may end in a log.
const MAX_CHAIN: usize = 500;
