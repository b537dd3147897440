//! Fuzzes `mesh_fuzz::sealed_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::sealed_head(data));
