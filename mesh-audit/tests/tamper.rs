//! Whatever is done to a log behind its back is found, and nothing else is.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod support;

use std::sync::OnceLock;

use mesh_audit::{ChainKey, Damage, Head, VerifyError, VerifyOptions, verify};
use proptest::prelude::*;
use support::{MemFs, Running, config};

fn key(byte: u8) -> ChainKey {
    ChainKey::from_bytes(&[byte; 40]).unwrap()
}

fn write_log(key: Option<ChainKey>, first_id: u64, records: u64) -> (Vec<u8>, Head) {
    let fs = MemFs::default();
    let mut config = config();
    config.key = key;
    let running = Running::start(config, &fs);
    let head =
        (first_id..first_id + records).fold(Head::EMPTY, |_, id| running.append(id).unwrap());
    running.stop();
    (fs.content(), head)
}

fn keyed() -> &'static (Vec<u8>, Head) {
    static LOG: OnceLock<(Vec<u8>, Head)> = OnceLock::new();
    LOG.get_or_init(|| write_log(Some(key(1)), 0, 19))
}

fn lines(content: &[u8]) -> Vec<Vec<u8>> {
    content
        .split_inclusive(|&byte| byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

#[derive(Clone, Debug)]
enum Tampering {
    FlipBit(usize, u8),
    Delete(usize),
    Swap(usize, usize),
    Repeat(usize, usize),
    Insert(usize, Vec<u8>),
    CutAfter(usize),
    CutInside(usize),
    /// The rest comes from a log with another key.
    ForeignTail(usize),
    /// Sealed anew after a change: without a key, or with another one.
    Reseal(bool),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let at = any::<usize>;
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Tampering::FlipBit(at, bit)),
        1 => at().prop_map(Tampering::Delete),
        1 => (at(), at()).prop_map(|(a, b)| Tampering::Swap(a, b)),
        1 => (at(), at()).prop_map(|(from, to)| Tampering::Repeat(from, to)),
        1 => (at(), proptest::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Tampering::Insert(at, bytes)),
        1 => at().prop_map(Tampering::CutAfter),
        1 => at().prop_map(Tampering::CutInside),
        1 => at().prop_map(Tampering::ForeignTail),
        1 => any::<bool>().prop_map(Tampering::Reseal),
    ]
}

fn tamper(content: &[u8], tampering: &Tampering) -> Vec<u8> {
    static FOREIGN: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let foreign =
        FOREIGN.get_or_init(|| [write_log(None, 1, 19).0, write_log(Some(key(2)), 0, 19).0]);
    let mut rows = lines(content);
    let count = rows.len();
    match tampering {
        Tampering::FlipBit(at, bit) => {
            let mut flipped = content.to_vec();
            flipped[at % content.len()] ^= 1 << bit;
            return flipped;
        }
        Tampering::Delete(at) => drop(rows.remove(at % count)),
        Tampering::Swap(a, b) => rows.swap(a % count, b % count),
        Tampering::Repeat(from, to) => rows.insert(to % (count + 1), rows[from % count].clone()),
        Tampering::Insert(at, bytes) => {
            let at = at % (content.len() + 1);
            return [&content[..at], bytes, &content[at..]].concat();
        }
        Tampering::CutAfter(at) => rows.truncate(at % count),
        Tampering::CutInside(at) => return content[..at % content.len()].to_vec(),
        Tampering::ForeignTail(at) => {
            let at = at % count;
            rows.truncate(at);
            rows.extend_from_slice(&lines(&foreign[1])[at..]);
        }
        Tampering::Reseal(keyed) => return foreign[usize::from(*keyed)].clone(),
    }
    rows.concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    // threat 57
    #[test]
    fn every_tampering_is_found_given_the_head(tampering in tampering()) {
        let (content, head) = keyed();
        let options = VerifyOptions::default().with_key(key(1)).with_expect_at_least(*head);
        let tampered = tamper(content, &tampering);
        let is_clean = tampered == *content;
        prop_assert_eq!(verify(&*tampered, &options).is_ok(), is_clean);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(verify(&*bytes, &VerifyOptions::default()).is_ok(), bytes.is_empty());
    }
}

#[test]
fn a_clean_log_raises_no_alarm_at_any_length() {
    let (content, head) = keyed();
    let rows = lines(content);
    for length in 0..=rows.len() {
        let report = verify(
            &*rows[..length].concat(),
            &VerifyOptions::default().with_key(key(1)),
        )
        .unwrap();
        assert_eq!(report.records, length as u64);
        // A head that was taken earlier holds for what grew from it.
        let options = VerifyOptions::default()
            .with_key(key(1))
            .with_expect_at_least(report.head);
        verify(&**content, &options).unwrap();
        let options = VerifyOptions::default()
            .with_key(key(1))
            .with_expect_head(report.head);
        assert_eq!(verify(&**content, &options).is_ok(), report.head == *head);
    }
}

// threat 57
#[test]
fn an_error_names_line_byte_and_damage() {
    let (content, head) = write_log(None, 0, 4);
    let rows = lines(&content);
    let check = |rows: &[&[u8]], at: u64, expected: Damage| match verify(
        &*rows.concat(),
        &VerifyOptions::default(),
    ) {
        Err(VerifyError::Damaged {
            line,
            offset,
            source,
        }) => {
            let before: usize = rows
                .iter()
                .take(usize::try_from(at).unwrap() - 1)
                .map(|row| row.len())
                .sum();
            assert_eq!((line, offset, source), (at, before as u64, expected));
        }
        other => panic!("{other:?}"),
    };
    let changed = String::from_utf8(rows[2].clone())
        .unwrap()
        .replace("\"id\":1", "\"id\":8");
    let (other, _) = write_log(None, 7, 4);
    let other = lines(&other);
    check(
        &[&rows[0], &rows[1], changed.as_bytes()],
        3,
        Damage::BadHash,
    );
    check(
        &[&rows[0], &rows[3], &rows[4]],
        2,
        Damage::Missing {
            expected: 2,
            found: 4,
        },
    );
    check(
        &[&rows[0], &rows[1], &rows[1]],
        3,
        Damage::WrongSequence {
            expected: 3,
            found: 2,
        },
    );
    check(&[&rows[0], &rows[1], &other[2]], 3, Damage::BrokenLink);
    check(&[&rows[0], b"{\"seq\":2}\n"], 2, Damage::NotRecord);
    check(&[&rows[0], b"not json\n"], 2, Damage::NotRecord);
    check(&[&rows[0], &rows[1][..50]], 2, Damage::TornTail);
    check(&[&rows[0], &vec![b'x'; 200_000]], 2, Damage::NotRecord);

    let cut = rows[..3].concat();
    let expect = |head| VerifyOptions::default().with_expect_at_least(head);
    assert!(
        matches!(verify(&*cut, &expect(head)), Err(VerifyError::Truncated { expected, found }) if expected == head && found.seq == 3)
    );
    assert!(matches!(
        verify(&*other.concat(), &expect(head)),
        Err(VerifyError::Rewritten { .. })
    ));
    let early = verify(&*cut, &VerifyOptions::default()).unwrap().head;
    let exact = VerifyOptions::default().with_expect_head(early);
    assert!(
        matches!(verify(&*content, &exact), Err(VerifyError::Longer { found, .. }) if found == head)
    );
}
