//! Why the authority gave nothing.

use std::io;
use std::path::PathBuf;

use mesh_auth::ca::CaError;
use mesh_auth::ca::join::JoinError;
use mesh_auth::spiffe::SpiffeId;
use mesh_auth::svid::SvidError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    #[error("{url:?} is not https://HOST:PORT")]
    Url { url: String },
    #[error("could not read or write {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others than its owner (chmod 600)")]
    Exposed { path: PathBuf },
    #[error("{path} is damaged; remove it and join again")]
    Damaged { path: PathBuf },
    #[error(
        "there is no certificate yet, and no join token: make one with mesh-node ca token, and name its file in \
         identity.join_token_file"
    )]
    NoToken,
    #[error("identity.join_token_file holds no join token")]
    Token(#[source] JoinError),
    #[error("could not make a key")]
    Key(#[source] CaError),
    #[error("could not connect to the certificate authority at {server}")]
    Connect { server: String, source: io::Error },
    #[error("the certificate authority at {server} did not answer in time")]
    Slow { server: String },
    #[error("who answers as the certificate authority is {found}, not {expected}")]
    Stranger { found: String, expected: SpiffeId },
    #[error("could not ask the certificate authority")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the certificate authority refused with {status}: {why}")]
    Refused { status: u16, why: String },
    #[error("the certificate authority's answer is no answer")]
    Answer(#[source] serde_json::Error),
    #[error("the certificate or key is not usable")]
    Tls(#[source] mesh_transport::Error),
    #[error("the certificate or key is damaged PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("the certificate breaks a rule")]
    Svid(#[source] SvidError),
    #[error(
        "the certificate is of {found}, but this node is {ours}; the join token is for another service"
    )]
    OtherId { found: SpiffeId, ours: SpiffeId },
    #[error("the authority's bundle has a root of another trust domain")]
    OtherDomain,
    #[error("the work was cut off")]
    Cut(#[source] tokio::task::JoinError),
}
