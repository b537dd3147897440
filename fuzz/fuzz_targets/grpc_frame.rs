//! Fuzzes `mesh_fuzz::grpc_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::grpc_frame(data));
