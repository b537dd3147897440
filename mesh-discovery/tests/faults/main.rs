//! What befalls registries, with real ones: killed, frozen, cut off, robbed of their data or their history, without a
//! leader. Whoever follows them comes to the same set within ten seconds and loses nothing that nobody took away.
//!
//! By default each is a short test. `cargo xtask soak` runs them in full and prints the figures.

#![cfg(all(feature = "consul", feature = "dns", feature = "etcd"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod consul;
mod dns;
mod etcd;
mod events;
mod follower;
mod partition;
mod plan;
#[path = "../support/mod.rs"]
mod support;

#[expect(clippy::print_stderr, reason = "the figures are for people")]
fn say(figures: &str) {
    eprintln!("{figures}");
}
