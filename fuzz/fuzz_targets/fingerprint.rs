//! Fuzzes `mesh_fuzz::fingerprint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::fingerprint(data));
