//! Fuzzes `mesh_fuzz::first_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::first_message(data));
