//! What a probe says and what it takes for a good answer: TCP, HTTP/1.1, and gRPC's health protocol.
//!
//! A TCP check is [`connect`]; the others ask over a stream, plain or TLS, that the caller gives.
//!
//! ```no_run
//! use mesh_discovery::{HealthConfig, HealthDriver, HttpProbe, Watch, connect};
//! use std::sync::Arc;
//!
//! # async fn checks(watch: Watch) -> Result<(), Box<dyn std::error::Error>> {
//! let probe = Arc::new(HttpProbe::new("orders", "/health")?);
//! let (health, driver) = HealthDriver::new(HealthConfig::default(), watch, move |endpoint| {
//!     let probe = Arc::clone(&probe);
//!     async move { probe.ask(&mut connect(&endpoint).await?).await }
//! })?;
//! driver.run().await;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "probe-grpc")]
mod grpc;
mod http;

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

#[cfg(feature = "probe-grpc")]
pub use self::grpc::GrpcProbe;
pub use self::http::HttpProbe;
use crate::address::check_address;
use crate::endpoint::Endpoint;

/// Opens a TCP connection to an endpoint, whose addresses are checked ([`check_address`]); a name's first four are tried,
/// one after the other.
///
/// # Errors
///
/// What the last address failed with.
///
/// # Cancel safety
///
/// Cancel safe: a connection half made is closed.
pub async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let Some(name) = endpoint.host.name() else {
        let address = endpoint
            .host
            .ip()
            .map(|ip| SocketAddr::new(ip, endpoint.port));
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        return TcpStream::connect(address).await;
    };
    let addresses = tokio::net::lookup_host((name, endpoint.port)).await?;
    let mut failure = io::Error::other(format!("{name} has no address"));
    for address in addresses.take(MAX_ADDRESSES) {
        // threat 49: a name leads nowhere where an address may not.
        let checked = check_address(address.ip()).map_err(io::Error::other);
        let attempt = match checked {
            Ok(ip) => TcpStream::connect(SocketAddr::new(ip, address.port())).await,
            Err(error) => Err(error),
        };
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// More are not tried within the time of a probe.
const MAX_ADDRESSES: usize = 4;

#[cfg(test)]
mod tests;
