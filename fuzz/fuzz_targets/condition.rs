//! Fuzzes `mesh_fuzz::condition`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::condition(data));
