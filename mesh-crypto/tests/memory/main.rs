//! What stays of secrets in memory when they were dropped: nothing.
#![cfg(all(
    target_os = "linux",
    feature = "aws-lc",
    feature = "encrypted-keys",
    feature = "rustcrypto"
))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod keys;
#[path = "../support/memory.rs"]
mod memory;
mod printed;
mod secrets;
