//! What befalls services while they are called: how much of it a caller notices, and for how long.
//!
//! By default each is a short test. `cargo xtask soak resilience` runs them in full. Each says its figure.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod amplification;
mod breaker;
mod instances;
mod overload;
mod restart;
mod scene;
#[path = "../support/mod.rs"]
mod support;
mod toxic;
#[path = "../safe_writes/wire.rs"]
mod wire;
mod wires;

use std::time::Duration;

/// A figure of the short form or of the long one.
fn pick<T>(short: T, long: T) -> T {
    if std::env::var_os("MESH_SOAK").is_some() {
        long
    } else {
        short
    }
}

#[expect(clippy::print_stderr, reason = "the figures are for people")]
fn say(figure: &str) {
    eprintln!("{figure}");
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}
