//! Fuzzes `mesh_fuzz::key_store_names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::key_store_names(data));
