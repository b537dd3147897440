//! Where services are, in a running node: the sources of the configuration behind one interface, what they may say, the
//! services that calls are made to, and the node's own entry in registries.
//!
//! A registry says where, never who. What it says passes [`admission`] before anything else sees it; what is left is
//! believed as `mesh_discovery::Ledger` describes; and whoever answers at an endpoint must still prove the id that this
//! node's configuration expects of the service.

pub(crate) mod admission;
pub(crate) mod cache;
pub(crate) mod control_planes;
pub(crate) mod own;
pub(crate) mod registration;
pub(crate) mod services;
pub(crate) mod sources;
pub(crate) mod view;
