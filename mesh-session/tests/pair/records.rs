//! Records and exchanges: order, replay, splicing, truncation, limits.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::LazyLock;

use crate::support::*;
use bytes::BytesMut;
use mesh_session::Config;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Opener;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::session_id_of;
use proptest::prelude::*;

const ROUTE: &[u8] = b"orders\0GET\0/list";

fn pair() -> (Arc<Session>, Arc<Session>) {
    let Handshake { alice, bob, .. } = handshake();
    (alice, bob)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "every caller has just got it"
)]
fn is_refused<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Open))
}

#[test]
fn streams_both_ways_until_each_end() {
    let (alice, bob) = pair();
    let (mut to_bob, mut from_bob) = alice.begin(ROUTE, now()).unwrap();
    let mut first = seal(&mut to_bob, Flags::HEAD, b"head");
    let (mut to_alice, mut from_alice, opened) = bob.accept(ROUTE, &mut first, now()).unwrap();
    assert_eq!((opened.flags, opened.exchange), (Flags::HEAD, 0));
    for (flags, text) in [
        (Flags::NONE, "one"),
        (Flags::NONE, ""),
        (Flags::END | Flags::TRAILERS, "last"),
    ] {
        let mut record = seal(&mut to_bob, flags, text.as_bytes());
        assert_eq!(from_alice.open(&mut record).unwrap(), flags);
        assert_eq!(record.as_ref(), text.as_bytes());
    }
    for flags in [Flags::HEAD, Flags::NONE, Flags::END] {
        let mut record = seal(&mut to_alice, flags, b"back");
        assert_eq!(from_bob.open(&mut record).unwrap(), flags);
    }
    from_alice.finish().unwrap();
    from_bob.finish().unwrap();
    drop((to_bob, from_bob, to_alice, from_alice));
    let (ours, theirs) = (alice.counters(), bob.counters());
    assert_eq!(
        (ours.exchanges, ours.sealed_records, ours.opened_records),
        (1, 4, 3)
    );
    assert_eq!(
        (ours.sealed_bytes, ours.opened_bytes),
        (theirs.opened_bytes, theirs.sealed_bytes)
    );
    assert_eq!(
        (ours.sealed_bytes, ours.opened_bytes, ours.refused_records),
        (11, 12, 0)
    );
}

#[test]
fn a_record_is_80_bytes_longer_than_its_text_and_names_its_session() {
    let (alice, _bob) = pair();
    let record = seal(
        &mut alice.begin(ROUTE, now()).unwrap().0,
        Flags::END,
        b"12345",
    );
    assert_eq!(record.len(), Sealer::HEADER_ROOM + 5 + Sealer::TRAILER_ROOM);
    assert_eq!(record.len(), 85);
    assert_eq!(session_id_of(&record).unwrap(), alice.id());
    assert!(matches!(
        session_id_of(&record[..79]),
        Err(Error::Malformed { .. })
    ));
    assert!(matches!(
        session_id_of(&[9; 80]),
        Err(Error::Version { version: 9 })
    ));
}

#[test]
fn sealing_and_opening_do_not_move_a_buffer_with_room() {
    let (alice, bob) = pair();
    let mut buf = BytesMut::with_capacity(4_096);
    buf.resize(Sealer::HEADER_ROOM + 1_000, 7);
    let at = buf.as_ptr();
    alice
        .begin(ROUTE, now())
        .unwrap()
        .0
        .seal(Flags::END, &mut buf)
        .unwrap();
    assert_eq!(buf.as_ptr(), at);
    bob.accept(ROUTE, &mut buf, now()).unwrap();
    assert_eq!(buf.as_ptr(), at.wrapping_add(Sealer::HEADER_ROOM));
}

#[test]
fn an_exchange_and_a_session_stay_small() {
    assert!(size_of::<Sealer>() <= 104, "{}", size_of::<Sealer>());
    assert!(size_of::<Opener>() <= 80, "{}", size_of::<Opener>());
    assert!(size_of::<Session>() <= 448, "{}", size_of::<Session>());
}

// threat 24
#[test]
fn an_exchange_is_accepted_once() {
    let (alice, bob) = pair();
    let record = seal(
        &mut alice.begin(ROUTE, now()).unwrap().0,
        Flags::END,
        b"pay",
    );
    bob.accept(ROUTE, &mut record.clone(), now()).unwrap();
    assert!(is_refused(bob.accept(ROUTE, &mut record.clone(), now())));
    assert_eq!(bob.counters().refused_records, 1);
}

// threat 24
#[test]
fn exchanges_may_overtake_within_the_window_and_not_beyond() {
    let alice = alice();
    let bob = local(BOB, &BOB_KEY, Config::default().with_window(1_024));
    let Handshake { alice, bob, .. } = handshake_of(&alice, bob);
    let records: Vec<_> = (0..1_100)
        .map(|_| seal(&mut alice.begin(ROUTE, now()).unwrap().0, Flags::END, b"x"))
        .collect();
    let accept = |at: usize| bob.accept(ROUTE, &mut records[at].clone(), now());
    accept(1_099).unwrap();
    accept(1_100 - 1_024).unwrap();
    assert!(is_refused(accept(1_099 - 1_024)));
    assert!(is_refused(accept(1_100 - 1_024)));
    accept(500).unwrap();
}

// threat 24: what does not authenticate must not move the window.
#[test]
fn a_forged_exchange_number_uses_up_nothing() {
    let (alice, bob) = pair();
    let record = seal(&mut alice.begin(ROUTE, now()).unwrap().0, Flags::END, b"x");
    for byte in 20..28 {
        let mut forged = record.clone();
        forged[byte] ^= 0x7f;
        assert!(is_refused(bob.accept(ROUTE, &mut forged, now())));
    }
    bob.accept(ROUTE, &mut record.clone(), now()).unwrap();
}

// threat 24
#[test]
fn a_stream_is_in_strict_order() {
    let (alice, bob) = pair();
    let stream = || {
        let (mut sealer, opener) = alice.begin(ROUTE, now()).unwrap();
        let first = seal(&mut sealer, Flags::NONE, b"0");
        let records = [b"1", b"2", b"3"].map(|text| seal(&mut sealer, Flags::NONE, text));
        let (_, reader, _) = bob.accept(ROUTE, &mut first.clone(), now()).unwrap();
        (opener, reader, first, records)
    };
    let (_, mut repeated, first, records) = stream();
    repeated.open(&mut records[0].clone()).unwrap();
    assert!(is_refused(repeated.open(&mut records[0].clone())));
    assert!(
        is_refused(repeated.open(&mut records[1].clone())),
        "nothing opens after a failure"
    );
    let (_, mut skipped, _, records) = stream();
    assert!(is_refused(skipped.open(&mut records[1].clone())));
    let (_, mut restarted, again, _) = stream();
    assert!(is_refused(restarted.open(&mut again.clone())));
    assert!(
        is_refused(bob.accept(ROUTE, &mut records[0].clone(), now())),
        "a later record begins no exchange"
    );
    assert!(is_refused(bob.accept(ROUTE, &mut first.clone(), now())));
}

// threat 25
#[test]
fn a_cut_stream_is_noticed_and_an_ended_one_takes_nothing_more() {
    let (alice, bob) = pair();
    let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
    let mut first = seal(&mut sealer, Flags::NONE, b"a");
    let (_, mut reader, _) = bob.accept(ROUTE, &mut first, now()).unwrap();
    assert!(matches!(reader.finish(), Err(Error::Truncated)));
    let mut flagged = seal(&mut sealer, Flags::NONE, b"b");
    flagged[2] |= Flags::END.bits();
    let mut last = seal(&mut sealer, Flags::END, b"c");
    assert!(
        is_refused(reader.open(&mut flagged)),
        "the end cannot be forged"
    );
    let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
    let mut only = seal(&mut sealer, Flags::END, b"a");
    let (_, mut reader, _) = bob.accept(ROUTE, &mut only, now()).unwrap();
    reader.finish().unwrap();
    assert!(is_refused(reader.open(&mut last)));
    let mut more = BytesMut::zeroed(Sealer::HEADER_ROOM);
    assert!(matches!(
        sealer.seal(Flags::NONE, &mut more),
        Err(Error::Ended)
    ));
    assert!(sealer.is_ended());
}

// threat 25
#[test]
fn a_cut_record_is_refused() {
    let (alice, bob) = pair();
    let record = seal(
        &mut alice.begin(ROUTE, now()).unwrap().0,
        Flags::END,
        b"text",
    );
    for len in 0..record.len() {
        assert!(is_refused(bob.accept(
            ROUTE,
            &mut BytesMut::from(&record[..len]),
            now()
        )));
    }
    bob.accept(ROUTE, &mut record.clone(), now()).unwrap();
}

// threat 26
#[test]
fn own_records_sent_back_are_refused() {
    let (alice, bob) = pair();
    let (mut sealer, mut opener) = alice.begin(ROUTE, now()).unwrap();
    let mut record = seal(&mut sealer, Flags::END, b"x");
    assert!(is_refused(opener.open(&mut record.clone())));
    let mut turned = record.clone();
    turned[3] = 2;
    let (_, mut opener) = alice.begin(ROUTE, now()).unwrap();
    assert!(is_refused(opener.open(&mut turned)));
    let (mut answer, _, _) = bob.accept(ROUTE, &mut record, now()).unwrap();
    let mut answer = seal(&mut answer, Flags::END, b"y");
    assert!(is_refused(bob.accept(ROUTE, &mut answer, now())));
}

// threat 26
#[test]
fn records_of_another_session_or_exchange_are_refused() {
    let (alice, bob) = pair();
    let (_, other_bob) = pair();
    let mut record = seal(&mut alice.begin(ROUTE, now()).unwrap().0, Flags::END, b"x");
    assert!(is_refused(other_bob.accept(
        ROUTE,
        &mut record.clone(),
        now()
    )));
    let mut renamed = record.clone();
    renamed[4..20].copy_from_slice(other_bob.id().as_bytes());
    assert!(is_refused(other_bob.accept(ROUTE, &mut renamed, now())));
    bob.accept(ROUTE, &mut record, now()).unwrap();

    let (mut first, mut first_answer) = alice.begin(ROUTE, now()).unwrap();
    let (mut second, mut second_answer) = alice.begin(ROUTE, now()).unwrap();
    let (mut to_first, mut reader, _) = bob
        .accept(ROUTE, &mut seal(&mut first, Flags::NONE, b"1"), now())
        .unwrap();
    let (mut to_second, _, _) = bob
        .accept(ROUTE, &mut seal(&mut second, Flags::NONE, b"2"), now())
        .unwrap();
    assert!(is_refused(reader.open(&mut seal(
        &mut second,
        Flags::END,
        b"2"
    ))));
    let (one, two) = (
        seal(&mut to_first, Flags::END, b"1"),
        seal(&mut to_second, Flags::END, b"2"),
    );
    assert!(is_refused(first_answer.open(&mut two.clone())));
    assert!(is_refused(second_answer.open(&mut one.clone())));
}

// threat 26
#[test]
fn a_record_belongs_to_its_route() {
    let (alice, bob) = pair();
    let (mut sealer, mut opener) = alice.begin(ROUTE, now()).unwrap();
    let record = seal(&mut sealer, Flags::END, b"x");
    for route in [
        b"".as_slice(),
        b"orders\0GET\0/lisT",
        b"orders\0GET\0/list\0",
    ] {
        assert!(is_refused(bob.accept(route, &mut record.clone(), now())));
    }
    let (mut answer, _, _) = bob.accept(ROUTE, &mut record.clone(), now()).unwrap();
    opener
        .open(&mut seal(&mut answer, Flags::END, b"y"))
        .unwrap();
}

// threat 27
#[test]
fn a_cancelled_exchange_never_gives_its_number_back() {
    let (alice, bob) = pair();
    let (mut cancelled, _) = alice.begin(ROUTE, now()).unwrap();
    let lost = seal(&mut cancelled, Flags::NONE, b"never sent");
    drop(cancelled);
    let (mut next, _) = alice.begin(ROUTE, now()).unwrap();
    assert_eq!(next.exchange(), 1);
    bob.accept(ROUTE, &mut seal(&mut next, Flags::END, b"x"), now())
        .unwrap();
    bob.accept(ROUTE, &mut lost.clone(), now()).unwrap();
}

// threat 27
#[test]
fn threads_that_share_a_session_never_share_an_exchange() {
    let (alice, bob) = pair();
    let run = || {
        let numbers = || {
            let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
            let mut record = seal(&mut sealer, Flags::END, b"x");
            bob.accept(ROUTE, &mut record, now()).unwrap().2.exchange
        };
        (0..200).map(|_| numbers()).collect::<Vec<_>>()
    };
    let seen: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 800);
}

#[test]
fn each_end_has_its_own_half_of_the_interface() {
    let (alice, bob) = pair();
    assert!(matches!(bob.begin(ROUTE, now()), Err(Error::Role)));
    let mut record = seal(&mut alice.begin(ROUTE, now()).unwrap().0, Flags::END, b"x");
    assert!(matches!(
        alice.accept(ROUTE, &mut record, now()),
        Err(Error::Role)
    ));
}

#[test]
fn a_buffer_that_does_not_fit_is_refused_and_costs_nothing() {
    let (alice, bob) = pair();
    let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
    assert!(matches!(
        sealer.seal(Flags::NONE, &mut BytesMut::zeroed(31)),
        Err(Error::HeaderRoom { .. })
    ));
    let mut long = BytesMut::zeroed(Sealer::HEADER_ROOM + Sealer::MAX_PLAINTEXT + 1);
    assert!(matches!(
        sealer.seal(Flags::NONE, &mut long),
        Err(Error::TooLong { .. })
    ));
    bob.accept(ROUTE, &mut seal(&mut sealer, Flags::END, b"x"), now())
        .unwrap();
}

// threat 20
#[test]
fn debug_of_a_session_shows_no_key() {
    let (alice, _) = pair();
    let text = format!("{:?} {alice:?}", alice.begin(ROUTE, now()).unwrap());
    for redacted in [
        "MacKey(redacted)",
        "AeadKey { algorithm: Aes256Gcm, .. }",
        "Secret(redacted)",
    ] {
        assert!(text.contains(redacted), "{text}");
    }
}

static SHARED: LazyLock<(Arc<Session>, Arc<Session>)> = LazyLock::new(pair);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // threat 24, threat 30
    #[test]
    fn no_changed_record_opens(
        text in proptest::collection::vec(any::<u8>(), 0..100),
        at in any::<proptest::sample::Index>(),
        with in 1_u8..,
        flags in 0_u8..2,
    ) {
        let (alice, bob) = &*SHARED;
        let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
        let flags = if flags == 0 { Flags::NONE } else { Flags::END };
        let record = seal(&mut sealer, flags, &text);
        let mut bad = record.clone();
        let at = at.index(bad.len());
        bad[at] ^= with;
        prop_assert!(is_refused(bob.accept(ROUTE, &mut bad, now())));
        let mut good = record;
        bob.accept(ROUTE, &mut good, now()).unwrap();
        prop_assert_eq!(good.as_ref(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // threat 24: the session's window against a set that remembers everything.
    #[test]
    fn accepts_each_exchange_once_in_any_order(order in proptest::collection::vec(0_usize..300, 0..300)) {
        let (alice, bob) = pair();
        let records: Vec<_> =
            (0..300).map(|_| seal(&mut alice.begin(ROUTE, now()).unwrap().0, Flags::END, b"x")).collect();
        let mut seen = HashSet::new();
        for at in order {
            prop_assert_eq!(bob.accept(ROUTE, &mut records[at].clone(), now()).is_ok(), seen.insert(at));
        }
    }
}
