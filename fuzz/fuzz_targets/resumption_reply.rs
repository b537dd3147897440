//! Fuzzes `mesh_fuzz::resumption_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::resumption_reply(data));
