//! A tamper-evident, crash-safe audit log and its verifier
