//! The two ways through a node: from the local application to other nodes, and from them to it.

pub(crate) mod endpoints;
pub(crate) mod headers;
pub(crate) mod inbound;
pub(crate) mod lane;
pub(crate) mod limit;
pub(crate) mod once;
pub(crate) mod outbound;
pub(crate) mod probe;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod rls;
pub(crate) mod route;
pub(crate) mod send;

/// The moment now, for pure cores that take it as a parameter; follows tokio's paused clock in tests.
pub(crate) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
