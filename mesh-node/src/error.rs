//! Why a node could not be started.

use std::io;
use std::path::PathBuf;

use mesh_transport::BoxError;

use crate::config::ConfigError;

/// Why a node could not be built or started. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Configuration: the file is not right.
    #[error(transparent)]
    ConfigFile(#[from] ConfigError),
    /// Configuration: a value that only shows when the parts are put together.
    #[error("{what}")]
    Config {
        /// Which key, and what to write.
        what: String,
        /// The cause, where there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// Environment: a file can't be read.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Environment: the source of the node's identity gave none that can be used.
    #[error("identity.source {from} gave no identity")]
    NoIdentity {
        /// The source, as the configuration names it.
        from: &'static str,
        /// The last thing that went wrong.
        source: BoxError,
    },
    /// Environment: listening, certificates, connections.
    #[error(transparent)]
    Transport(#[from] mesh_transport::Error),
    /// Environment: the audit log can't be opened, and nothing runs unrecorded.
    #[error("could not open the audit log")]
    Audit(#[from] mesh_audit::OpenError),
    /// Environment: keys.
    #[error("could not prepare the RSA identity key")]
    Keys(#[from] mesh_crypto::Error),
    /// Environment: the secure session.
    #[error("could not prepare secure sessions")]
    Session(#[from] mesh_session::Error),
    /// Environment: something else.
    #[error("could not {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn config(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Config {
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// What a thread for blocking work ended with instead of a result.
    pub(crate) fn task(source: tokio::task::JoinError) -> Self {
        Self::Io {
            what: "finish what was begun on another thread",
            source: io::Error::other(source),
        }
    }

    pub(crate) fn missing(what: String) -> Self {
        Self::Config { what, source: None }
    }
}
