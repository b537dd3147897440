//! What the benchmarks share: how long they measure, and the sizes of the messages.
//!
//! The benchmarks themselves are in `benches/`, one file a component; the README says how to run and read them.

pub mod policies;

use std::time::Duration;
use std::time::Instant;

use criterion::Criterion;

/// Bytes in a message: less than a header block, what the design is measured with, and a full TLS record.
pub const SIZES: [usize; 3] = [64, 1024, 16 * 1024];

/// The time at which a benchmark began, for state machines that are told the time.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real clock"
)]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Settings with which all benchmarks together take less than four minutes. What the command line says wins.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASUREMENT)
        .nresamples(RESAMPLES)
        .configure_from_args()
}

/// Enough for a median that repeats within a few per cent on a quiet machine.
const SAMPLES: usize = 20;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASUREMENT: Duration = Duration::from_millis(800);
/// A tenth of criterion's own: the interval it prints is then good to two digits, which is more than the machine is.
const RESAMPLES: usize = 10_000;
