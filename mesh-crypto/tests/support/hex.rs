//! Bytes as the vectors write them.

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap();
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::try_from(digit(&pair[0]) << 4 | digit(&pair[1])).unwrap())
        .collect()
}
