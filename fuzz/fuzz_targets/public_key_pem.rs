//! Fuzzes `mesh_fuzz::public_key_pem`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::public_key_pem(data));
