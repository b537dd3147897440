//! Fuzzes `mesh_fuzz::resumption`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::resumption(data));
