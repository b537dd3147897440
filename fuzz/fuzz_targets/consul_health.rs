//! Fuzzes `mesh_fuzz::consul_health`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::consul_health(data));
