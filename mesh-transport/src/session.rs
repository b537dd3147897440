//! The secure session as a gRPC service between nodes: `mesh.v1.SecureMesh` of `proto/mesh.proto`.
//!
//! What a hop needs to route, the called service, travels in clear and is bound into every record; head, body and
//! trailers of the request and of the answer travel sealed.

mod client;
mod frame;
mod head;
mod open;
mod pause;
mod seal;
mod server;

pub use self::client::SessionClient;
pub use self::client::SessionPool;
pub use self::client::VerifyPeerDebug;
pub use self::frame::FrameError;
pub use self::head::HeadError;
pub use self::head::HeadTooLarge;
pub use self::server::Opened;
pub use self::server::Refused;
pub use self::server::SessionConfig;
pub use self::server::SessionServer;

use http::HeaderName;

/// Gives the token to show to the peer of a name; empty where there are no tokens.
pub type TokenFor = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// The called service, in clear.
pub const MESH_SERVICE: HeaderName = HeaderName::from_static("mesh-service");
/// `no` on an answer of the peer's node whose application provably did not see the request.
pub const MESH_PROCESSED: HeaderName = HeaderName::from_static("x-mesh-processed");
/// Agrees on a session.
pub const HANDSHAKE_PATH: &str = "/mesh.v1.SecureMesh/Handshake";
/// One exchange whose request fits into one record.
pub const CALL_PATH: &str = "/mesh.v1.SecureMesh/Call";
/// One exchange of any length.
pub const STREAM_PATH: &str = "/mesh.v1.SecureMesh/Stream";
/// The route, in the place of the called service, of an exchange that ends its session.
pub const CLOSE_ROUTE: &str = "mesh-session close";
/// The code in `x-mesh-error` for a session that is not known or over.
pub const NO_SESSION: &str = "no_session";

/// The code in `x-mesh-error` for a handshake that is not begun now.
pub const BUSY: &str = "overloaded";
/// When another try makes sense, in milliseconds (gRFC A6, "Pushback"); finer than `retry-after`.
pub const RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

fn instant() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// Both messages of a handshake fit well: an RSA-4096 key, a chain of a few certificates and a token.
const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
