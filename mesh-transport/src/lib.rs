//! Listeners, mutual TLS with hot certificate rotation, pooled connections, HTTP forwarding and drain.
//!
//! ```
//! # use std::convert::Infallible;
//! # use http::{Request, Response};
//! # use hyper::service::service_fn;
//! # use mesh_transport::{Body, app::{AppClient, AppConfig}, drain::{self, Phase}, listen::Listener};
//! # use mesh_transport::{server::{Protocol, Server, ServerConfig}, tasks::Tasks};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tasks = Tasks::new(tokio::runtime::Handle::current());
//! let listener = Listener::bind(([127, 0, 0, 1], 0).into(), 100)?;
//! let client = AppClient::new(AppConfig::new(listener.address()?.to_string()), tasks.clone());
//!
//! let (signal, drain) = drain::channel();
//! let (server, held, connections) = (Server::new(&ServerConfig::default(), tasks.clone()), drain.clone(), tasks.clone());
//! tasks.start(listener.run(drain, move |accepted| {
//!     let hello = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) });
//!     let (server, held) = (server.clone(), held.clone());
//!     connections.start(async move { server.serve(accepted.stream, Protocol::Detect, hello, held).await });
//! }));
//!
//! let answer = client.send(Request::get("/").header("host", "there").body(Body::empty())?).await?;
//! assert_eq!(answer.status(), 200);
//! signal.enter(Phase::Draining);
//! signal.drained().await;
//! # Ok(())
//! # }
//! ```
//!
//! ## What this crate does not do
//!
//! - It decides nothing about a request: no routes, no policy, no retries, no load balancing. It says instead whether a
//!   request that failed may have been processed (`Error::is_unprocessed`), and sends again only what provably left no byte.
//! - It reads no file and watches none; certificates come as PEM text, and whoever has new ones calls `TlsStore::replace`.
//! - TLS 1.3 only, between peers that both show a certificate. There is no resumption (a resumed session would skip the
//!   verification of the peer), no revocation list, and no TLS towards the local application.
//! - No HTTP/3, no raw TCP forwarding, no upgrades (WebSocket, `CONNECT`).
//! - It never spawns by itself: background work runs on the runtime that its caller hands in (`tasks`).
//!
//! ## Modules
//!
//! | module | what is in it |
//! |---|---|
//! | `app` | the way to the local application: pooled HTTP/1.1, HTTP/2 for gRPC |
//! | `body` | the one body type: streamed, and watched where somebody wants to know how it ended |
//! | `drain` | shutting down in phases, without losing a request |
//! | `error` | what can fail between two sockets, and whether the other side may have acted |
//! | `listen` | accepting connections, bounded in number |
//! | `peer` | the way to other nodes: HTTP/2 over mutual TLS, shared and replaced |
//! | `server` | serving HTTP/1.1 and HTTP/2 with limits and drain |
//! | `session` | requests and answers sealed end to end, as a gRPC service |
//! | `spiffe` | SPIFFE ids as the names that TLS verifies |
//! | `tasks` | where background work runs |
//! | `tls` | identities that are swapped while connections live, and who is trusted |
//!
//! ## Features
//!
//! | feature | adds |
//! |---|---|
//! | `session` | the module `session` (mesh-session) |
//! | `spiffe` | the module `spiffe` (mesh-auth) |
//!
//! ## Cancel safety
//!
//! Every future here may be dropped. A request that is dropped is reset at the other side, which may have acted on it; its
//! HTTP/1.1 connection is closed, an HTTP/2 one lives on. A dial or handshake that is dropped leaves nothing behind, and
//! whoever waited for it begins anew. Private-key work that has begun runs to its end and keeps its place among those
//! allowed until then.
//!
//! ## Errors
//!
//! One type, `Error`, sorted by who has to act and whether anything was sent; `peer::Unsent` also gives the request back
//! where not a byte of it left.

pub mod app;
pub mod body;
mod coalesce;
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
