//! Fuzzes `mesh_fuzz::rate_limit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::rate_limit(data));
