//! Fuzzes `mesh_fuzz::xds_assignment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::xds_assignment(data));
