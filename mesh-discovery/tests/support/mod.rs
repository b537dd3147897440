//! Real registries on free ports of loopback, each a process that ends with its test, and the faults that befall them.
//!
//! The programs come from `cargo xtask servers`. Where one is missing a test says so and passes. Starting one blocks the
//! thread until it answers: do it before the test's runtime has work, or in a runtime of several threads.

#![allow(
    dead_code,
    reason = "each test file is a program of its own and uses a part of this"
)]
#![allow(clippy::unwrap_used, reason = "a test helper may panic")]
#![allow(clippy::panic, reason = "a test helper may panic")]

pub(crate) mod ads;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod consul;
pub(crate) mod etcd;
pub(crate) mod knot;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod tools;
