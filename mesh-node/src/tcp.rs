//! Connections that are not HTTP (a database, a cache): carried byte for byte between two nodes over mutual TLS, with the
//! same identities and the same rules. A rule decides once, when the connection is made; nothing passes before.
//!
//! | # | inbound | ends with |
//! |--:|---|---|
//! | 1 | TLS, and the protocol `mesh-tcp/1` | close |
//! | 2 | rate limit of the caller | close |
//! | 3 | whether it is the prober, who reaches no application | close |
//! | 4 | policy, without method and path | close |
//! | 5 | record; in durable mode on disk | close |
//! | 6 | the application | close |
//! | 7 | bytes both ways; a side that ends is ended on the other | reset of the application's connection |
//!
//! Only what TLS says is the end is passed on as one. When the other node's connection is cut, or its certificate no longer
//! holds, the application's connection is reset.
//!
//! Such a connection carries no token of a service and no user: who calls is the certificate.

mod carry;
mod inbound;
mod outbound;

pub(crate) use self::inbound::TcpApp;
pub(crate) use self::inbound::serve_peer;
pub(crate) use self::outbound::serve_application;
