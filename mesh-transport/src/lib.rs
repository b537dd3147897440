//! Listeners, mutual TLS with hot certificate rotation, pooled connections, HTTP forwarding and drain.

pub mod app;
pub mod body;
mod connect;
pub mod drain;
pub mod error;
pub mod listen;
pub mod peer;
pub mod server;
#[cfg(feature = "session")]
pub mod session;
#[cfg(feature = "spiffe")]
pub mod spiffe;
pub mod tasks;
pub mod tls;

pub use crate::body::Body;
pub use crate::error::BoxError;
pub use crate::error::Error;
