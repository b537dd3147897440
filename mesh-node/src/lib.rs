//! A zero-trust service mesh in one binary: sidecar, gateway and library

pub mod cli;
pub mod config;
