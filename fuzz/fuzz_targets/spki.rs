//! Fuzzes `mesh_fuzz::spki`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::spki(data));
