//! The hash that consistent balancing stands on: the same on every machine and in every version.

/// Hashes what calls are told apart by, such as a user's name, for [`Ask::with_hash`](super::Ask::with_hash).
///
/// FNV-1a with 64 bits (Fowler, Noll, Vo; RFC 9923), then the finalizer of `SplitMix64`, since FNV alone spreads the last
/// byte badly over the upper bits. Not for keys of tables that strangers fill: whoever chooses the text can choose the
/// endpoint.
pub const fn hash(text: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = after;
    }
    mix(hash)
}

/// Variant 13 of Stafford's mixers, as `SplitMix64` has it.
pub(super) const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The hash of a key for the `number`th time.
pub(super) const fn nth(hash: u64, number: u64) -> u64 {
    mix(hash.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// A number in `0..bound` from the upper bits of a hash; 0 for a bound of 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below `bound`, which is a usize"
)]
pub(super) const fn scale(hash: u64, bound: usize) -> usize {
    ((hash as u128 * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_then_splitmix() {
        // RFC 9923, appendix A: FNV-1a 64 of the empty text and of "a".
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(hash(b"foobar"), mix(0x8594_4171_f739_67e8));
    }
}
