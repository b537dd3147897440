//! Two ends of a session, driven by hand: handshake, records, table.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod epochs;
mod handshake;
mod records;
mod resume;
mod support;
mod table;
