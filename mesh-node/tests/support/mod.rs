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

// The registries and what starts them serve the tests of mesh-discovery too.
#[path = "../../../mesh-discovery/tests/support/ads.rs"]
pub(crate) mod ads;
#[path = "../../../mesh-discovery/tests/support/certificates.rs"]
pub(crate) mod certificates;
#[path = "../../../mesh-discovery/tests/support/client.rs"]
pub(crate) mod client;
#[path = "../../../mesh-discovery/tests/support/consul.rs"]
pub(crate) mod consul;
#[path = "../../../mesh-discovery/tests/support/etcd.rs"]
pub(crate) mod etcd;
#[path = "../../../mesh-discovery/tests/support/knot.rs"]
pub(crate) mod knot;
#[path = "../../../mesh-discovery/tests/support/process.rs"]
pub(crate) mod process;
#[path = "../../../mesh-discovery/tests/support/redis.rs"]
pub(crate) mod redis;
#[path = "../../../mesh-discovery/tests/support/relay.rs"]
pub(crate) mod relay;
#[path = "../../../mesh-discovery/tests/support/rls.rs"]
pub(crate) mod rls;
#[path = "../../../mesh-discovery/tests/support/tools.rs"]
pub(crate) mod tools;

pub(crate) mod app;
pub(crate) mod envoy;
pub(crate) mod h2;
pub(crate) mod load;
pub(crate) mod mesh;
pub(crate) mod open_load;
pub(crate) mod tap;

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
