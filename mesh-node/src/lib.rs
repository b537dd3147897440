//! A zero-trust service mesh: the node as a program, and as a part of a Rust program.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use mesh_node::SecureMesh;
//! use mesh_node::config::{Environment, NodeConfig};
//!
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! let config = NodeConfig::load(Path::new("mesh.yaml"), &Environment::new())?;
//! let mesh = SecureMesh::builder(config).start().await?;
//! let orders = mesh.connect("order-service")?;
//! let ids: Vec<u64> = orders.call("getOrdersByUser", &"ada").await?;
//! mesh.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! As a program, `mesh-node run -c mesh.yaml` stands beside a service; `mesh-node demo` shows what it does, and
//! `mesh-node --help` lists the rest.
//!
//! # What this crate does not do
//!
//! - It holds wiring and no mechanism: policy is in `mesh-auth`, sessions in `mesh-session`, bytes in `mesh-transport`,
//!   retries and breakers in `mesh-resilience`, the audit log in `mesh-audit`. Each can be used without this crate.
//! - It has no gateway yet: it carries calls of its own application and of other nodes. A key of one is refused.
//! - It never falls back to something weaker: a part that can't be had ends the start.
//!
//! # Modules
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | the file: its structs, its errors with file, line and key, its schema |
//! | [`cli`] | the commands |
//! | [`respond`] | every answer that the mesh makes itself |
//! | [`route`] | which route takes a call |
//! | the root | [`SecureMesh`], for Rust programs; [`Node`], built from a configuration and run |
//!
//! # Features
//!
//! None.
//!
//! # Errors and cancel safety
//!
//! [`Error`] says why a node can't be built; a wrong file is a [`config::ConfigError`]. [`CallError`] says why a call got
//! no answer, with a stable code. [`Node::run`] is not cancel safe: dropping it cuts what is in
//! flight; let its `stop` become ready instead.

mod access_log;
mod adapt;
mod admin;
mod audit;
mod ca_service;
pub mod cli;
pub mod config;
mod consul;
mod credentials;
mod decision;
mod demo;
mod discovery;
mod error;
mod explanation;
mod health;
mod identity;
mod jwks;
mod mesh;
mod methods;
mod node;
mod policy_store;
mod prove;
mod rate_limits;
pub mod respond;
pub mod route;
mod secret_file;
mod service_token;
mod stack;
mod tasks;
mod tcp;
mod telemetry;
mod trace;
mod watch;
mod workload_api;

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
pub use crate::policy_store::ReloadHandle;
pub use mesh_resilience::breaker::State as CircuitState;
pub use mesh_transport::Body;
