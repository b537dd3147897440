//! Stopping at every single call, and what is found afterwards.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_crypto::Engine as _;
use mesh_crypto::Error;
use mesh_crypto::Fingerprint;
use mesh_crypto::KeyStore;

use crate::memory::Crash;
use crate::memory::Fault;
use crate::memory::Memory;
use crate::memory::Written;
use crate::support::BITS;
use crate::support::Canned;

const PARTS: [Written; 4] = [
    Written::Nothing,
    Written::Name,
    Written::Half,
    Written::Unsynced,
];
const CRASHES: [Crash; 2] = [Crash::OfTheProcess, Crash::OfTheMachine];
const HOUR: Duration = Duration::from_hours(1);

fn open(memory: &Memory) -> Result<KeyStore, Error> {
    KeyStore::open(Arc::new(memory.clone()), Path::new("keys"))
}

/// What a fresh process finds, oldest first. Every key is whole and nothing else is left.
fn found(memory: &Memory) -> Vec<Fingerprint> {
    let list = open(memory).unwrap().list(&Canned::new()).unwrap();
    assert_eq!(
        memory.names().len(),
        list.len(),
        "left behind: {:?}",
        memory.names()
    );
    list.into_iter().map(|key| key.fingerprint).collect()
}

/// The keys of the engine in its order.
fn three() -> [Fingerprint; 3] {
    let engine = Canned::new();
    [(); 3].map(|()| engine.generate_rsa(BITS).unwrap().public().fingerprint())
}

/// Runs `operation` on copies of `start`, stopped at each of its calls in every way, and gives what is found after each
/// crash, and whether the operation said that it was done. Gives how many crashes that were.
fn crash_everywhere(
    start: &Memory,
    operation: impl Fn(&Memory) -> bool,
    check: impl Fn(bool, &[Fingerprint]),
) -> usize {
    let whole = start.copy_with(Fault::None);
    assert!(operation(&whole));
    let mut crashes = 0;
    for at in 0..=whole.calls() {
        for written in PARTS {
            let stopped = start.copy_with(Fault::Stops { at, written });
            let done = operation(&stopped);
            assert_eq!(done, at == whole.calls(), "call {at}");
            for crash in CRASHES {
                check(done, &found(&stopped.after(crash)));
                crashes += 1;
            }
        }
    }
    crashes
}

// threat 58, for keys
#[test]
fn a_crash_while_a_key_is_made_leaves_the_old_keys_or_those_and_the_new_one() {
    let [first, second, _] = three();
    let start = Memory::new();
    open(&start)
        .unwrap()
        .generate(&Canned::new(), BITS, 1)
        .unwrap();
    let rotate = |memory: &Memory| {
        let engine = Canned::new();
        engine.generate_rsa(BITS).unwrap();
        open(memory).is_ok_and(|store| store.rotate(&engine, BITS, 2).is_ok())
    };
    let crashes = crash_everywhere(&start, rotate, |done, keys| {
        assert!(
            keys == [first, second] || (!done && keys == [first]),
            "{keys:?}"
        );
    });
    assert!(crashes > 80, "{crashes}");
}

// threat 58, for keys
#[test]
fn a_crash_at_the_first_start_leaves_no_key_or_the_whole_one() {
    let [first, ..] = three();
    let load = |memory: &Memory| {
        let loaded = open(memory).and_then(|store| store.load_or_generate(&Canned::new(), BITS, 1));
        loaded.is_ok()
    };
    crash_everywhere(&Memory::new(), load, |done, keys| {
        assert!(
            keys == [first] || (!done && keys.is_empty()),
            "{done} {keys:?}"
        );
    });
}

// threat 58, for keys
#[test]
fn a_crash_while_keys_are_retired_takes_none_that_still_opens() {
    let [first, second, third] = three();
    let start = Memory::new();
    let (store, engine) = (open(&start).unwrap(), Canned::new());
    for now in [1_000, 2_000, 3_000] {
        store.rotate(&engine, BITS, now).unwrap();
    }
    let retire = |memory: &Memory| {
        let retired =
            open(memory).and_then(|store| store.retire(&Canned::new(), HOUR, 2_000 + 3_600));
        match retired {
            Ok(retired) => {
                assert_eq!(retired, [first]);
                true
            }
            Err(_) => false,
        }
    };
    crash_everywhere(&start, retire, |done, keys| {
        assert!(
            keys == [second, third] || (!done && keys == [first, second, third]),
            "{keys:?}"
        );
    });
}

#[test]
fn a_call_that_fails_leaves_the_keys_as_they_were() {
    let [first, second, _] = three();
    let start = Memory::new();
    open(&start)
        .unwrap()
        .generate(&Canned::new(), BITS, 1)
        .unwrap();
    let rotate = |memory: &Memory| {
        let engine = Canned::new();
        engine.generate_rsa(BITS).unwrap();
        let store = open(memory)?;
        store.rotate(&engine, BITS, 2).map(|_| ())
    };
    let whole = start.copy_with(Fault::None);
    rotate(&whole).unwrap();
    let mut failures = 0;
    for at in 0..whole.calls() {
        let failing = start.copy_with(Fault::Fails(at));
        // Some calls may fail without harm: sweeping is tried again at the next opening.
        if let Err(error) = rotate(&failing) {
            assert!(matches!(error, Error::Store { .. }), "{error}");
            assert_eq!(found(&failing.after(Crash::OfTheProcess)), [first]);
            failures += 1;
        } else {
            assert_eq!(found(&failing.after(Crash::OfTheProcess)), [first, second]);
        }
    }
    assert!(failures >= 8, "{failures}");
}

#[test]
fn only_our_own_leftovers_are_swept() {
    let memory = Memory::new();
    open(&memory).unwrap();
    let key = format!("rsa-{:020}-{}.pem", 1, "ab".repeat(32));
    memory.put(&format!(".{key}.new"), b"half a k");
    let others = [
        format!(".{key}.new~"),
        format!("{key}.new"),
        ".rsa-1.pem.new".to_owned(),
        "README".to_owned(),
    ];
    for name in &others {
        memory.put(name, b"kept");
    }
    open(&memory).unwrap();
    let mut expected = others.to_vec();
    expected.sort();
    assert_eq!(memory.names(), expected);
}
