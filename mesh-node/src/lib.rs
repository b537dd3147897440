//! A zero-trust service mesh in one binary: sidecar, gateway and library

mod access_log;
mod adapt;
mod admin;
mod audit;
pub mod cli;
pub mod config;
mod error;
mod identity;
mod mesh;
mod methods;
mod node;
pub mod respond;
mod stack;
mod tasks;
mod telemetry;
mod trace;

pub use crate::error::Error;
pub use crate::mesh::AuditStats;
pub use crate::mesh::Builder;
pub use crate::mesh::CallError;
pub use crate::mesh::Client;
pub use crate::mesh::Health;
pub use crate::mesh::HealthStatus;
pub use crate::mesh::SecureMesh;
pub use crate::mesh::ServiceHealth;
pub use crate::mesh::Stats;
pub use crate::methods::HandlerError;
pub use crate::node::Addresses;
pub use crate::node::Local;
pub use crate::node::Node;
pub use mesh_resilience::breaker::State as CircuitState;
pub use mesh_transport::Body;
