//! Bytes as text in the files.

use serde_json::Value;

pub(crate) fn encode(bytes: &[u8]) -> Value {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in bytes {
        write!(out, "{byte:02x}").unwrap();
    }
    Value::String(out)
}

pub(crate) fn field(object: &Value, name: &str) -> Vec<u8> {
    let text = object[name].as_str();
    let text = text.ok_or(name).unwrap().as_bytes();
    let (pairs, rest) = text.as_chunks::<2>();
    assert!(rest.is_empty());
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(byte).collect()
}
