//! Rotation: what is current, what still opens, what goes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_crypto::Error;
use mesh_crypto::KeyStore;
use mesh_crypto::keystore::KeyState;
use proptest::prelude::*;

use crate::memory::Memory;
use crate::support::BITS;
use crate::support::Canned;
use crate::support::open;
use crate::support::place;

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_replaced_key_opens_through_the_overlap_and_then_goes() {
    let (_parent, dir) = place();
    let (store, engine) = (open(&dir).unwrap(), Canned::new());
    assert!(store.load_all(&engine, HOUR, 0).unwrap().is_none());
    assert!(store.retire(&engine, HOUR, u64::MAX).unwrap().is_empty());
    let [first, second, third] = [10_000, 11_000, 12_000].map(|now| {
        let key = store.rotate(&engine, BITS, now).unwrap();
        key.public().fingerprint()
    });
    // Until when a key opens, seen from several times.
    for (now, expected) in [
        (12_000, vec![(second, 15_600), (first, 14_600)]),
        (14_599, vec![(second, 15_600), (first, 14_600)]),
        (14_600, vec![(second, 15_600)]),
        (15_600, vec![]),
    ] {
        let keys = store.load_all(&engine, HOUR, now).unwrap().unwrap();
        assert_eq!(keys.current.public().fingerprint(), third);
        let previous: Vec<_> = keys
            .previous
            .iter()
            .map(|key| (key.key.public().fingerprint(), key.until))
            .collect();
        assert_eq!(previous, expected, "at {now}");
    }
    assert!(store.retire(&engine, HOUR, 14_599).unwrap().is_empty());
    let states: Vec<_> = store
        .list(&engine)
        .unwrap()
        .iter()
        .map(|key| (key.fingerprint, key.state(HOUR, 14_600)))
        .collect();
    assert_eq!(
        states,
        [
            (first, KeyState::Over { since: 14_600 }),
            (second, KeyState::Overlap { until: 15_600 }),
            (third, KeyState::Current),
        ]
    );
    assert_eq!(store.retire(&engine, HOUR, 14_600).unwrap(), [first]);
    assert!(store.find(&engine, first).unwrap().is_none());
    assert!(store.find(&engine, second).unwrap().is_some());
    assert_eq!(
        store.retire(&engine, Duration::ZERO, u64::MAX).unwrap(),
        [second]
    );
    assert_eq!(
        store
            .newest(&engine)
            .unwrap()
            .unwrap()
            .public()
            .fingerprint(),
        third
    );
}

#[test]
fn a_clock_that_was_set_back_makes_no_older_key() {
    let (_parent, dir) = place();
    let (store, engine) = (open(&dir).unwrap(), Canned::new());
    store.rotate(&engine, BITS, 5_000).unwrap();
    let next = store.rotate(&engine, BITS, 1_000).unwrap();
    let newest = store.newest(&engine).unwrap().unwrap();
    assert_eq!(newest.public(), next.public());
    let list = store.list(&engine).unwrap();
    assert_eq!((list[1].created, list[0].replaced), (5_001, Some(5_001)));
}

#[test]
fn nothing_is_retired_while_the_newest_cannot_be_read() {
    let (_parent, dir) = place();
    let (store, engine) = (open(&dir).unwrap(), Canned::new());
    store.rotate(&engine, BITS, 1_000).unwrap();
    store.rotate(&engine, BITS, 2_000).unwrap();
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let text = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &text[..100]).unwrap();
    assert!(matches!(
        store.retire(&engine, Duration::ZERO, 9_000),
        Err(Error::Pem { .. })
    ));
    assert!(files[0].exists());
}

#[test]
fn a_date_that_has_no_year_is_refused() {
    let (_parent, dir) = place();
    let (store, engine) = (open(&dir).unwrap(), Canned::new());
    assert!(matches!(
        store.generate(&engine, BITS, u64::MAX),
        Err(Error::StoreEntry { .. })
    ));
    assert!(store.newest(&engine).unwrap().is_none());
}

#[test]
fn the_number_of_keys_is_bounded() {
    let memory = Memory::new();
    let store = KeyStore::open(Arc::new(memory.clone()), Path::new("keys")).unwrap();
    for number in 0..1_000 {
        memory.put(&format!("rsa-{number:020}-{}.pem", "00".repeat(32)), b"");
    }
    let refused = store.rotate(&Canned::new(), BITS, 1);
    assert!(matches!(refused, Err(Error::StoreEntry { what, .. }) if what.contains("1,000")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Against the sentence: a key is there unless it was replaced `overlap` or longer before some retirement.
    #[test]
    fn what_retires_is_what_was_replaced_long_enough_ago(
        steps in proptest::collection::vec((any::<bool>(), 0_u64..300), 1..12),
        overlap in 0_u64..500,
    ) {
        let memory = Memory::new();
        let store = KeyStore::open(Arc::new(memory.clone()), Path::new("keys")).unwrap();
        let engine = Canned::new();
        let mut now = 0;
        // The dates of the keys that should be there.
        let mut model: Vec<u64> = Vec::new();
        for (rotates, later) in steps {
            now += later;
            if rotates && model.len() < 3 {
                store.rotate(&engine, BITS, now).unwrap();
                model.push(model.last().map_or(now, |last| now.max(last + 1)));
            } else {
                let retired = store.retire(&engine, Duration::from_secs(overlap), now).unwrap();
                let over = model.windows(2).filter(|pair| pair[1] + overlap <= now).count();
                prop_assert_eq!(retired.len(), over);
                model.drain(..over);
            }
            let dates: Vec<u64> = store.list(&engine).unwrap().iter().map(|key| key.created).collect();
            prop_assert_eq!(&dates, &model);
        }
    }
}
