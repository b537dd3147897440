//! Fuzzes `mesh_fuzz::cache`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::cache(data));
