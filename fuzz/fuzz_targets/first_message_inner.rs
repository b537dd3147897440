//! Fuzzes `mesh_fuzz::first_message_inner`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::first_message_inner(data));
