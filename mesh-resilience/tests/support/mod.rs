//! Real servers on free ports of loopback, each a process that ends with its test.
//!
//! The programs come from `cargo xtask servers`. Where one is missing a test says so and passes.

#![allow(
    dead_code,
    reason = "each test file is a program of its own and uses a part of this"
)]
#![allow(clippy::unwrap_used, reason = "a test helper may panic")]
#![allow(clippy::panic, reason = "a test helper may panic")]

// What starts servers serves the tests of mesh-discovery and mesh-node too.
#[path = "../../../mesh-discovery/tests/support/certificates.rs"]
pub(crate) mod certificates;
#[path = "../../../mesh-discovery/tests/support/process.rs"]
pub(crate) mod process;
#[path = "../../../mesh-discovery/tests/support/redis.rs"]
pub(crate) mod redis;
#[path = "../../../mesh-discovery/tests/support/rls.rs"]
pub(crate) mod rls;
#[path = "../../../mesh-discovery/tests/support/tools.rs"]
pub(crate) mod tools;
