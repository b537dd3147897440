//! Disks that are full, lie or fail: no record is lost that was answered, none is answered that is lost.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mesh_audit::{AppendError, Durability, Head, OpenError, VerifyOptions, verify};
use support::{Call, EIO, ENOSPC, Fault, MemFs, Op, Running, block_on, config, event, ids};

/// Appends until it is accepted and answered; fresh ids, so that what failed is not mistaken for it.
fn append_through(running: &Running, next_id: &mut u64) -> (u64, Head) {
    loop {
        *next_id += 1;
        match running.append(*next_id) {
            Ok(head) => return (*next_id, head),
            Err(error) => assert!(matches!(error, AppendError::Failed(_)), "{error}"),
        }
        std::thread::yield_now();
    }
}

/// After a sync that failed the file is cut before anything is synced again.
fn check_no_sync_is_retried(fs: &MemFs) {
    fs.with(|disk| {
        for (at, op) in disk.trace.iter().enumerate() {
            if *op == Op::Failed(Call::Sync) {
                let next = disk
                    .trace
                    .iter()
                    .skip(at + 1)
                    .find(|op| !matches!(op, Op::Failed(Call::Truncate)));
                assert!(
                    next.is_none_or(|op| matches!(op, Op::Truncate(_))),
                    "after a failed sync: {next:?}"
                );
            }
        }
    });
}

// threat 58
#[test]
fn a_failure_of_any_call_loses_nothing_that_was_answered() {
    for (errno, lasting) in [(ENOSPC, 1), (EIO, 1), (ENOSPC, 7), (EIO, 4)] {
        for first in 0..40 {
            let fs = MemFs::default();
            let running = Running::start(config(), &fs);
            let mut call = 0;
            fs.set_faults(move |_| {
                call += 1;
                (call > first && call <= first + lasting).then_some(Fault::Errno(errno))
            });
            let mut id = 0;
            let acked: Vec<_> = (0..20).map(|_| append_through(&running, &mut id)).collect();
            let stats = running.log.stats();
            running.stop();

            let content = fs.content();
            let report = verify(
                &*content,
                &VerifyOptions::default().with_expect_head(acked.last().unwrap().1),
            )
            .unwrap();
            assert_eq!(
                ids(&content),
                acked.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
                "call {first}"
            );
            assert_eq!((report.recoveries, stats.is_failed), (1, false));
            assert!(stats.failures > 0 && stats.lost > 0);
            check_no_sync_is_retried(&fs);
        }
    }
}

// threat 58
#[test]
fn short_writes_leave_no_partial_line() {
    for bytes in [1, 7, 100, 511] {
        let fs = MemFs::default();
        fs.set_faults(move |call| (call == Call::Write).then_some(Fault::Short(bytes)));
        let running = Running::start(config(), &fs);
        let head = (0..10).fold(Head::EMPTY, |_, id| running.append(id).unwrap());
        running.stop();
        verify(
            &*fs.content(),
            &VerifyOptions::default().with_expect_head(head),
        )
        .unwrap();
    }
}

// threat 58
#[test]
fn a_write_cut_short_by_a_full_disk_is_cut_off_again() {
    let fs = MemFs::default();
    let running = Running::start(config(), &fs);
    running.append(1).unwrap();
    let mut calls = 0;
    fs.set_faults(move |_| {
        calls += 1;
        match calls {
            1 => Some(Fault::Short(50)),
            2 => Some(Fault::Errno(ENOSPC)),
            _ => None,
        }
    });
    assert!(
        matches!(running.append(2), Err(AppendError::Failed(error)) if error.raw_os_error() == Some(ENOSPC))
    );
    let (id, head) = append_through(&running, &mut 2);
    running.stop();
    verify(
        &*fs.content(),
        &VerifyOptions::default().with_expect_head(head),
    )
    .unwrap();
    assert_eq!(ids(&fs.content()), [1, id]);
    let text = String::from_utf8(fs.content()).unwrap();
    assert!(text.contains("\"notice\":\"log_recovered\"") && text.contains("\"refused\":"));
}

// threat 58
#[test]
fn while_the_disk_is_full_every_event_is_refused_and_the_file_stays_valid() {
    let fs = MemFs::default();
    let running = Running::start(config(), &fs);
    let head = running.append(1).unwrap();
    let is_full = Arc::new(AtomicBool::new(true));
    let full = Arc::clone(&is_full);
    fs.set_faults(move |call| {
        (call == Call::Write && full.load(Ordering::SeqCst)).then_some(Fault::Errno(ENOSPC))
    });
    for id in 0..100 {
        assert!(matches!(running.append(id), Err(AppendError::Failed(_))));
    }
    assert!(running.log.stats().is_failed);
    assert_eq!(running.log.head(), head);
    // Several repairs get as far as writing their notice, and must not leave it twice.
    while running.log.stats().failures < 5 {
        std::thread::yield_now();
    }
    is_full.store(false, Ordering::SeqCst);
    append_through(&running, &mut 100);
    assert!(!running.log.stats().is_failed);
    running.stop();
    verify(
        &*fs.content(),
        &VerifyOptions::default().with_expect_at_least(head),
    )
    .unwrap();
}

#[test]
fn what_was_accepted_asynchronously_outlives_a_failing_disk() {
    for errno in [ENOSPC, EIO] {
        let fs = MemFs::default();
        let failures = Arc::new(AtomicUsize::new(0));
        let running = Running::start(config().with_durability(Durability::Async), &fs);
        let mut accepted = Vec::new();
        for id in 0..300 {
            if id == 100 {
                let failures = Arc::clone(&failures);
                fs.set_faults(move |_| {
                    (failures.fetch_add(1, Ordering::SeqCst) < 12).then_some(Fault::Errno(errno))
                });
            }
            if block_on(running.log.append(event(id))).is_ok() {
                accepted.push(id);
            }
        }
        while failures.load(Ordering::SeqCst) < 12 {
            // Something must be queued for the disk to be tried.
            if running.log.try_append(event(1000)).is_ok() {
                accepted.push(1000);
            }
            std::thread::yield_now();
        }
        let log = running.log.clone();
        log.shutdown();
        running.stop();
        assert_eq!(log.stats().lost, 0);
        verify(
            &*fs.content(),
            &VerifyOptions::default().with_expect_head(log.head()),
        )
        .unwrap();
        assert_eq!(ids(&fs.content()), accepted);
    }
}

#[test]
fn a_log_that_is_closed_while_the_disk_fails_ends_and_counts_what_it_lost() {
    let fs = MemFs::default();
    let running = Running::start(config().with_durability(Durability::Async), &fs);
    fs.set_faults(|_| Some(Fault::Errno(EIO)));
    for id in 0..10 {
        block_on(running.log.append(event(id))).unwrap();
    }
    let log = running.log.clone();
    log.shutdown();
    running.stop();
    assert_eq!((log.stats().lost, log.stats().appended), (10, 1));
}

#[test]
fn a_log_that_can_not_be_created_is_not_opened() {
    for call in [Call::Write, Call::Sync] {
        let fs = MemFs::default();
        fs.set_faults(move |made| (made == call).then_some(Fault::Errno(ENOSPC)));
        assert!(matches!(
            Running::try_start(config(), &fs),
            Err(OpenError::Io { .. })
        ));
        fs.clear_faults();
        Running::start(config(), &fs).stop();
        verify(&*fs.content(), &VerifyOptions::default()).unwrap();
    }
}
