//! Fuzzes `mesh_fuzz::key_set`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::key_set(data));
