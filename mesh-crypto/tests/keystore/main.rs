//! The key store: on the real file system, on one that stops and fails, through rotation, and encrypted.
#![cfg(all(unix, feature = "aws-lc"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod crash;
mod disk;
#[cfg(feature = "encrypted-keys")]
mod encrypted;
mod memory;
mod rotation;
mod support;
