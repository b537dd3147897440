//! Cookies that are good, old, of somebody else, or no cookies at all.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use proptest::prelude::*;

use super::*;

const ADDRESS: &[u8] = &[127, 0, 0, 1, 0x1f, 0x90];

const fn at(millis: u64) -> UnixTime {
    UnixTime::from_millis(1_800_000_000_000 + millis)
}

fn mint() -> CookieMint {
    CookieMint::new(aws_lc(), Arc::new(SystemRandom::new()), at(0)).unwrap()
}

/// Always the same bytes, or none.
#[derive(Debug)]
struct Fixed(std::sync::atomic::AtomicBool);

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) -> Result<(), mesh_crypto::Error> {
        if self.0.load(std::sync::atomic::Ordering::Relaxed) {
            out.fill(7);
            Ok(())
        } else {
            Err(mesh_crypto::Error::Random)
        }
    }
}

// threat 32
#[test]
fn passes_for_its_address_and_message_alone() {
    let mint = mint();
    let cookie = mint.mint(ADDRESS, b"first", at(0));
    mint.check(&cookie, ADDRESS, b"first", at(20)).unwrap();
    for (address, message) in [
        (&[127, 0, 0, 1, 0x1f, 0x91][..], &b"first"[..]),
        (ADDRESS, b"second"),
        (ADDRESS, b""),
        (&[], b"first"),
    ] {
        let refused = mint.check(&cookie, address, message, at(20));
        assert!(matches!(refused, Err(Error::Open)), "{refused:?}");
    }
    let other = self::mint();
    other.check(&cookie, ADDRESS, b"first", at(20)).unwrap_err();
    for wrong in [&cookie[..39], &[&cookie[..], &[0]].concat(), &[]] {
        mint.check(wrong, ADDRESS, b"first", at(20)).unwrap_err();
    }
}

#[test]
fn is_good_for_thirty_seconds_and_never_from_further_ahead() {
    let mint = mint();
    let cookie = mint.mint(ADDRESS, b"first", at(40_000));
    let good = |now| mint.check(&cookie, ADDRESS, b"first", at(now)).is_ok();
    assert!(good(70_000) && good(10_000));
    assert!(!good(70_001) && !good(9_999));
}

#[test]
fn keys_are_replaced_and_the_one_before_still_passes() {
    let mint = mint();
    let old = mint.mint(ADDRESS, b"first", at(59_000));
    let new = mint.mint(ADDRESS, b"first", at(60_000));
    mint.check(&old, ADDRESS, b"first", at(89_000)).unwrap();
    mint.check(&new, ADDRESS, b"first", at(89_000)).unwrap();
    // The time in a cookie is not what makes it good: two keys later nothing opens it.
    let mint = mint.with_lifetime(Duration::from_hours(1));
    let _two = mint.mint(ADDRESS, b"first", at(120_000));
    mint.check(&new, ADDRESS, b"first", at(120_000)).unwrap();
    mint.check(&old, ADDRESS, b"first", at(120_000))
        .unwrap_err();
}

#[test]
fn keeps_its_key_while_there_is_no_randomness() {
    let random = Arc::new(Fixed(true.into()));
    let mint = CookieMint::new(aws_lc(), Arc::<Fixed>::clone(&random), at(0)).unwrap();
    random.0.store(false, std::sync::atomic::Ordering::Relaxed);
    let cookie = mint.mint(ADDRESS, b"first", at(200_000));
    mint.check(&cookie, ADDRESS, b"first", at(200_001)).unwrap();
    CookieMint::new(aws_lc(), random, at(0)).unwrap_err();
}

#[test]
fn has_the_bytes_of_the_protocol() {
    let mint = CookieMint::new(aws_lc(), Arc::new(Fixed(true.into())), at(0)).unwrap();
    let cookie = mint.mint(ADDRESS, b"first", at(5));
    let time = 1_800_000_000_005u64.to_be_bytes();
    let mut input = b"mesh-session v1 cookie\0".to_vec();
    input.extend(time);
    input.extend([0, 6]);
    input.extend(ADDRESS);
    input.extend(aws_lc().sha256(&[b"first"]));
    let tag = aws_lc().mac_key(&[7; 32]).sign(&[&input]);
    assert_eq!(cookie[..], [&time[..], &tag].concat());
    assert_eq!(challenge(&cookie), [&[1, 6], &cookie[..]].concat());
    assert_eq!(
        with_cookie(&cookie, b"first"),
        [&[1, 7], &cookie[..], b"first"].concat()
    );
}

#[test]
fn wrappers_refuse_other_kinds_versions_and_lengths() {
    let cookie = [9; 40];
    let wrapped = challenge(&cookie);
    assert_eq!(parse_challenge(&wrapped).unwrap(), cookie);
    for wrong in [&wrapped[..41], &[&wrapped[..], &[0]].concat(), &[], &[1]] {
        let refused = parse_challenge(wrong);
        assert!(matches!(refused, Err(Error::Malformed { .. })));
    }
    parse_with_cookie(&wrapped).unwrap_err();
    parse_challenge(&with_cookie(&cookie, b"")).unwrap_err();
    let refused = parse_challenge(&[&[2, 6], &cookie[..]].concat());
    assert!(matches!(refused, Err(Error::Version { version: 2 })));
}

proptest! {
    #[test]
    fn what_was_wrapped_comes_back(message in prop::collection::vec(any::<u8>(), 0..100), cookie in any::<[u8; 32]>()) {
        let cookie: [u8; 40] = [&cookie[..], &[1; 8]].concat().try_into().unwrap();
        let wrapped = with_cookie(&cookie, &message);
        prop_assert_eq!(parse_with_cookie(&wrapped).unwrap(), (cookie, &message[..]));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(0u8..9, 0..60)) {
        drop(parse_challenge(&bytes));
        drop(parse_with_cookie(&bytes));
        mint().check(&bytes, ADDRESS, b"", at(0)).unwrap_err();
    }

    // threat 32
    #[test]
    fn one_changed_bit_is_refused(bit in 0usize..320, message in prop::collection::vec(any::<u8>(), 0..100)) {
        let mint = mint();
        let mut cookie = mint.mint(ADDRESS, &message, at(0));
        mint.check(&cookie, ADDRESS, &message, at(0)).unwrap();
        cookie[bit / 8] ^= 1 << (bit % 8);
        mint.check(&cookie, ADDRESS, &message, at(0)).unwrap_err();
    }
}
