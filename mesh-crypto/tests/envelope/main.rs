//! Envelopes: round trips, everything that is refused, streams, and the vectors of `ENVELOPE.md`.
#![cfg(any(feature = "aws-lc", feature = "rustcrypto"))]
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod python;
mod refused;
mod round_trip;
mod streams;
mod support;
mod vectors;
