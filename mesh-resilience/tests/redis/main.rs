//! The limit that nodes share, on a real Redis.
#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod faults;
mod fleet;
mod model;
#[path = "../reference/limit.rs"]
mod reference;
mod ways_in;

#[path = "../support/mod.rs"]
mod support;
