//! Two real nodes with the applications and clients around them, each a process of its own, for black-box tests.
//!
//! The other programs come from `cargo xtask servers`. Where one is missing a test says so and passes; what can be tested
//! without it is.

#![allow(
    dead_code,
    reason = "each test file is a program of its own and uses a part of this"
)]
#![allow(clippy::unwrap_used, reason = "a test helper may panic")]
#![allow(clippy::panic, reason = "a test helper may panic")]

pub(crate) mod client;
pub(crate) mod consul;
pub(crate) mod envoy;
pub(crate) mod h2;
pub(crate) mod load;
pub(crate) mod mesh;
pub(crate) mod process;
pub(crate) mod tap;
pub(crate) mod tools;

/// Runs each test once with sealed calls and once with mutual TLS alone.
#[macro_export]
macro_rules! with_both_encryptions {
    ($($name:ident),* $(,)?) => {
        mod hybrid {
            $(#[test] fn $name() { super::$name("hybrid"); })*
        }
        mod mtls {
            $(#[test] fn $name() { super::$name("mtls"); })*
        }
    };
}
