//! This crate against a second implementation of its protocol, in Python, which was written from `PROTOCOL.md` alone.
//!
//! Each test has a Python process on the other end of a loopback connection, with every message and record behind its
//! length in four bytes. Python and its package come from `cargo xtask servers`.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]
#![expect(clippy::panic, reason = "a test helper may panic")]

mod handshakes;
mod records;
mod refusals;
mod second;
mod support;
