//! Writing, answering, ending and opening again.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod support;

use std::num::NonZeroUsize;

use mesh_audit::{
    AppendError, ChainKey, Damage, Durability, Head, OpenError, OsFileSystem, Receipt,
    VerifyOptions, verify,
};
use support::{Call, MemFs, Running, block_on, clock, config, count, event, ids};

fn key(byte: u8) -> ChainKey {
    ChainKey::from_bytes(&[byte; 32]).unwrap()
}

#[test]
fn a_durable_append_is_answered_after_its_sync() {
    let fs = MemFs::default();
    let running = Running::start(config(), &fs);
    assert_eq!(running.log.head().seq, 1);
    fs.hold_syncs(true);
    let append = running.log.append(event(7));
    fs.wait_for_sync();
    assert_eq!((ids(&fs.content()), running.log.head().seq), (vec![7], 1));
    fs.hold_syncs(false);
    let head = block_on(append).unwrap().head().unwrap();
    assert_eq!((head.seq, head), (2, running.log.head()));
    running.stop();
    let report = verify(
        &*fs.content(),
        &VerifyOptions::default().with_expect_head(head),
    )
    .unwrap();
    assert_eq!(
        (report.records, report.repairs, report.is_keyed),
        (2, 0, false)
    );
    assert_eq!(
        report.last_time.as_deref(),
        Some("2027-01-15T08:00:00.000Z")
    );
    assert_eq!(report.bytes, fs.content().len() as u64);
}

#[test]
fn callers_that_wait_together_share_one_write_and_one_sync() {
    let fs = MemFs::default();
    let running = Running::start(config(), &fs);
    fs.hold_syncs(true);
    let first = running.log.append(event(0));
    fs.wait_for_sync();
    let others: Vec<_> = (1..65).map(|id| running.log.append(event(id))).collect();
    let (writes, syncs) = (fs.count(Call::Write), fs.count(Call::Sync));
    fs.hold_syncs(false);
    block_on(first).unwrap();
    for (id, append) in others.into_iter().enumerate() {
        assert_eq!(block_on(append).unwrap().head().unwrap().seq, id as u64 + 3);
    }
    // One sync more for the first.
    assert_eq!(
        (fs.count(Call::Write) - writes, fs.count(Call::Sync) - syncs),
        (1, 2)
    );
    running.stop();
    assert_eq!(ids(&fs.content()), (0..65).collect::<Vec<_>>());
}

#[test]
fn a_dropped_future_does_not_drop_its_record() {
    let fs = MemFs::default();
    let running = Running::start(config(), &fs);
    drop(running.log.append(event(1)));
    running.log.try_append(event(2)).unwrap();
    running.stop();
    assert_eq!(ids(&fs.content()), [1, 2]);
}

#[test]
fn a_future_may_be_polled_by_different_tasks() {
    let fs = MemFs::default();
    let (log, driver) = mesh_audit::open(config(), fs, clock).unwrap();
    let mut append = log.append(event(1));
    for _ in 0..3 {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(
            std::pin::Pin::new(&mut append)
                .poll(&mut context)
                .is_pending()
        );
    }
    let writer = std::thread::spawn(move || driver.run());
    assert_eq!(block_on(append).unwrap().head().unwrap().seq, 2);
    drop(log);
    writer.join().unwrap();
}

// threat 59
#[test]
fn a_full_queue_refuses_and_counts() {
    let fs = MemFs::default();
    let config = config().with_queue(count(2), NonZeroUsize::MAX);
    let (log, driver) = mesh_audit::open(config, fs.clone(), clock).unwrap();
    let accepted = [log.append(event(1)), log.append(event(2))];
    assert!(matches!(
        block_on(log.append(event(3))),
        Err(AppendError::Full { records: 2, .. })
    ));
    assert!(matches!(
        log.try_append(event(4)),
        Err(AppendError::Full { .. })
    ));
    assert_eq!((log.stats().refused, log.stats().queued), (2, 2));
    let writer = std::thread::spawn(move || driver.run());
    for append in accepted {
        block_on(append).unwrap();
    }
    block_on(log.append(event(5))).unwrap();
    drop(log);
    writer.join().unwrap();
    assert_eq!(ids(&fs.content()), [1, 2, 5]);
}

// threat 59
#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let (log, _driver) = mesh_audit::open(
        config().with_queue(count(100), count(50)),
        MemFs::default(),
        clock,
    )
    .unwrap();
    log.try_append(event(1)).unwrap();
    assert!(matches!(
        log.try_append(event(2)),
        Err(AppendError::Full { records: 1, .. })
    ));
}

#[test]
fn shutdown_writes_what_is_queued_and_refuses_the_rest() {
    let fs = MemFs::default();
    let (log, driver) = mesh_audit::open(config(), fs.clone(), clock).unwrap();
    let append = log.append(event(1));
    log.shutdown();
    assert!(matches!(log.try_append(event(2)), Err(AppendError::Closed)));
    driver.run();
    block_on(append).unwrap();
    assert_eq!(ids(&fs.content()), [1]);
    let stats = log.stats();
    assert_eq!(
        (stats.appended, stats.refused, stats.lost, stats.syncs),
        (2, 1, 0, 2)
    );
    assert_eq!(stats.bytes, fs.content().len() as u64);
}

#[test]
fn a_driver_that_goes_away_answers_everyone() {
    let (log, driver) = mesh_audit::open(config(), MemFs::default(), clock).unwrap();
    let append = log.append(event(1));
    drop(driver);
    assert!(matches!(block_on(append), Err(AppendError::Closed)));
    assert!(matches!(log.try_append(event(2)), Err(AppendError::Closed)));
    assert_eq!(log.stats().lost, 1);
}

#[test]
fn an_asynchronous_append_is_answered_when_queued() {
    let fs = MemFs::default();
    let running = Running::start(config().with_durability(Durability::Async), &fs);
    for id in 0..1000 {
        assert_eq!(
            block_on(running.log.append(event(id))).unwrap(),
            Receipt::Queued
        );
    }
    running.stop();
    assert_eq!(ids(&fs.content()), (0..1000).collect::<Vec<_>>());
    assert_eq!(
        verify(&*fs.content(), &VerifyOptions::default())
            .unwrap()
            .records,
        1001
    );
    assert!(fs.count(Call::Sync) < 20);
}

#[test]
fn an_opened_log_goes_on_where_it_ended() {
    let fs = MemFs::default();
    let mut head = Head::EMPTY;
    for round in 0..5 {
        let running = Running::start(config(), &fs);
        assert!(round == 0 || running.log.head() == head);
        head = running.append(round).unwrap();
        running.stop();
    }
    let report = verify(
        &*fs.content(),
        &VerifyOptions::default().with_expect_head(head),
    )
    .unwrap();
    assert_eq!(
        (report.records, report.repairs, ids(&fs.content())),
        (6, 0, vec![0, 1, 2, 3, 4])
    );
}

// threat 58
#[test]
fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = mesh_audit::Config::new(folder.path().join("new/folders/audit.log"));
    let (log, driver) = mesh_audit::open(config.clone(), OsFileSystem, clock).unwrap();
    let second = mesh_audit::open(config.clone(), OsFileSystem, clock);
    assert!(matches!(second, Err(OpenError::Locked(path)) if path == config.path));
    drop((log, driver));
    drop(mesh_audit::open(config, OsFileSystem, clock).unwrap());
}

// threat 58
#[test]
fn a_torn_tail_is_cut_and_noted() {
    let fs = MemFs::default();
    let running = Running::start(config(), &fs);
    let acked = running.append(1).unwrap();
    running.stop();
    let whole = fs.content();
    let torn = b"{\"seq\":3,\"time\":\"20\0\0\0";
    fs.with(|disk| disk.content.extend_from_slice(torn));
    assert!(
        verify(&*fs.content(), &VerifyOptions::default())
            .unwrap_err()
            .to_string()
            .contains("line 3")
    );

    let running = Running::start(config(), &fs);
    running.append(2).unwrap();
    running.stop();
    let content = fs.content();
    let report = verify(
        &*content,
        &VerifyOptions::default().with_expect_at_least(acked),
    )
    .unwrap();
    assert_eq!(
        (report.records, report.repairs, ids(&content)),
        (4, 1, vec![1, 2])
    );
    let notice = content.split(|&byte| byte == b'\n').nth(2).unwrap();
    let notice: serde_json::Value = serde_json::from_slice(notice).unwrap();
    assert_eq!(
        (&notice["event"], &notice["notice"]),
        (&"notice".into(), &"tail_repaired".into())
    );
    assert_eq!(
        (&notice["cut_bytes"], &notice["cut_at"]),
        (&torn.len().into(), &whole.len().into())
    );
    assert_eq!(notice["cut_sha256"].as_str().unwrap().len(), 64);
}

fn three_records(key: Option<ChainKey>) -> Vec<u8> {
    let fs = MemFs::default();
    let mut config = config();
    config.key = key;
    let running = Running::start(config, &fs);
    for id in 1..4 {
        running.append(id).unwrap();
    }
    running.stop();
    fs.content()
}

fn check_refused(content: &[u8], key: Option<ChainKey>, line: u64, damage: Damage) {
    let fs = MemFs::holding(content.to_vec());
    let mut config = config();
    config.key = key;
    let refusal = Running::try_start(config, &fs).err();
    let found = match &refusal {
        Some(OpenError::Damaged { line, source, .. }) => Some((*line, *source)),
        _ => None,
    };
    assert_eq!(found, Some((line, damage)), "{refusal:?}");
    assert_eq!(fs.content(), content, "evidence must not be touched");
}

// threats 57 and 58
#[test]
fn damage_that_is_no_torn_tail_is_refused_and_left_alone() {
    let content = three_records(None);
    let text = String::from_utf8(content.clone()).unwrap();
    check_refused(
        text.replace("\"id\":2", "\"id\":9").as_bytes(),
        None,
        3,
        Damage::BadHash,
    );
    // No record at all, but the one after it says that it had been synced.
    check_refused(
        text.replace("\"id\":1", "\"id:1").as_bytes(),
        None,
        2,
        Damage::NotRecord,
    );
    let without: String = text
        .split_inclusive('\n')
        .filter(|line| !line.contains("\"id\":2"))
        .collect();
    check_refused(
        without.as_bytes(),
        None,
        3,
        Damage::Missing {
            expected: 3,
            found: 4,
        },
    );
    // A changed last line is whole, so no crash did it.
    check_refused(
        text.replace("\"id\":3", "\"id\":9").as_bytes(),
        None,
        4,
        Damage::BadHash,
    );
    check_refused(
        text.split_inclusive('\n')
            .skip(1)
            .collect::<String>()
            .as_bytes(),
        None,
        1,
        Damage::Missing {
            expected: 1,
            found: 2,
        },
    );
}

// threat 57
#[test]
fn a_log_opened_with_the_wrong_key_is_left_alone() {
    check_refused(&three_records(Some(key(1))), None, 1, Damage::KeyNeeded);
    check_refused(
        &three_records(Some(key(1))),
        Some(key(2)),
        1,
        Damage::WrongKey,
    );
    check_refused(&three_records(None), Some(key(1)), 1, Damage::NotKeyed);
    let options = VerifyOptions::default().with_key(key(1));
    assert!(
        verify(&*three_records(Some(key(1))), &options)
            .unwrap()
            .is_keyed
    );
}

#[test]
fn an_empty_file_verifies_as_empty() {
    let report = verify(&b""[..], &VerifyOptions::default()).unwrap();
    assert_eq!(
        (report.records, report.head, report.first_time),
        (0, Head::EMPTY, None)
    );
}
