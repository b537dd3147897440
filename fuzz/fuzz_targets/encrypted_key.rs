//! Fuzzes `mesh_fuzz::encrypted_key`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::encrypted_key(data));
