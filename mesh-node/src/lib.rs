//! A zero-trust service mesh in one binary: sidecar, gateway and library

mod access_log;
mod adapt;
mod admin;
mod audit;
pub mod cli;
pub mod config;
mod error;
mod identity;
mod methods;
mod node;
pub mod respond;
mod stack;
mod tasks;
mod telemetry;
mod trace;

pub use crate::error::Error;
pub use crate::methods::HandlerError;
pub use crate::node::Addresses;
pub use crate::node::Local;
pub use crate::node::Node;
