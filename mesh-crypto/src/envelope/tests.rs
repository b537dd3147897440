//! The header's form, which needs no key.

use proptest::prelude::*;

use super::header::Header;
use super::*;

#[test]
fn tells_what_is_no_envelope_from_what_is_a_later_one() {
    let what = |bytes: &[u8]| match peek(bytes) {
        Err(Error::Envelope { what }) => what,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(what(b""), "ends within its header");
    assert_eq!(what(b"mesh-env\x01\x01short"), "ends within its header");
    assert_eq!(what(b"-----BEGIN"), "does not begin as one");
    assert_eq!(
        what(b"mesh-env\x02"),
        "is of a version or suite that is not known here"
    );
    assert_eq!(
        what(b"mesh-env\x01\x02"),
        "is of a version or suite that is not known here"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(rest in proptest::collection::vec(any::<u8>(), 0..1_300), begins in any::<bool>()) {
        let mut bytes = if begins { b"mesh-env\x01\x01".to_vec() } else { Vec::new() };
        bytes.extend_from_slice(&rest);
        // Either answer is right; the lengths of a header that is found are within the bytes.
        if let Ok(Some(header)) = Header::parse(&bytes) {
            prop_assert!(header.len <= bytes.len() && header.signed.len() < header.len);
        }
    }
}
