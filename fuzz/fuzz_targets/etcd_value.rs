//! Fuzzes `mesh_fuzz::etcd_value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::etcd_value(data));
