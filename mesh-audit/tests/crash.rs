//! A power cut at every point of a run: nothing that was answered is lost, and the chain verifies.
//!
//! The method of ALICE (Pillai et al., OSDI 2014): record the operations, rebuild what a disk may hold after each of them if the
//! power went then, and recover from it. What was not synced may be missing, cut at any byte, or zero
//! in any of its 512-byte sectors.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

mod support;

use mesh_audit::{Event, EventKind, Head, VerifyOptions, verify};
use support::{Call, EIO, Fault, MemFs, Op, Running, block_on, config, event};

/// A run, and after which operation which record had been answered.
struct Run {
    trace: Vec<Op>,
    acked: Vec<(usize, Head)>,
}

fn run() -> Run {
    let fs = MemFs::default();
    let mut acked = Vec::new();
    let mut running = Running::start(config(), &fs);
    let long = "é".repeat(400);
    for (round, batch) in [1_u64, 3, 1, 6, 2, 9, 1, 4].into_iter().enumerate() {
        if round == 3 {
            // A reopening, and with it a repair, in the middle.
            running.stop();
            let torn = b"{\"seq\":9,\"ti".to_vec();
            fs.with(|disk| disk.content.extend_from_slice(&torn));
            fs.with(|disk| disk.trace.push(Op::Write(torn)));
            running = Running::start(config(), &fs);
        }
        let is_failing = round == 5;
        if is_failing {
            // And a recovery from a sync that fails once.
            let mut left = 1;
            fs.set_faults(move |call| {
                (call == Call::Sync && std::mem::take(&mut left) > 0).then_some(Fault::Errno(EIO))
            });
        }
        fs.hold_syncs(true);
        let first = running.log.append(event(0));
        fs.wait_for_sync();
        let others: Vec<_> = (1..batch)
            .map(|id| {
                running.log.append(
                    Event::new(EventKind::Message)
                        .with("id", id)
                        .with("long", &long),
                )
            })
            .collect();
        fs.hold_syncs(false);
        for append in std::iter::once(first).chain(others) {
            match block_on(append) {
                // Nothing is queued then, so the trace ends with the sync that answered.
                Ok(receipt) => {
                    acked.push((fs.with(|disk| disk.trace.len()), receipt.head().unwrap()));
                }
                Err(_) => assert!(is_failing),
            }
        }
        while running.log.stats().is_failed {
            std::thread::yield_now();
        }
        fs.clear_faults();
    }
    running.stop();
    Run {
        trace: fs.with(|disk| disk.trace.clone()),
        acked,
    }
}

/// What the file may hold if the power goes after these operations.
fn states(trace: &[Op], mut content: Vec<u8>, seed: u64) -> Vec<Vec<u8>> {
    let mut stable = content.clone();
    for op in trace {
        match op {
            Op::Write(bytes) => content.extend_from_slice(bytes),
            Op::Truncate(length) => content.truncate(usize::try_from(*length).unwrap()),
            Op::Sync => stable.clone_from(&content),
            Op::Failed(_) => {}
        }
    }
    let mut states = vec![stable.clone(), content.clone()];
    let Some(unsynced) = content
        .len()
        .checked_sub(stable.len())
        .filter(|length| *length > 0)
    else {
        return states;
    };
    let cuts = (0..unsynced).filter(|cut| {
        (stable.len() + cut).is_multiple_of(512) || cut.is_multiple_of(11) || cut + 3 > unsynced
    });
    states.extend(cuts.map(|cut| content[..stable.len() + cut].to_vec()));
    let sectors: Vec<_> = (stable.len() / 512..=content.len() / 512)
        .map(|sector| (sector * 512).max(stable.len())..((sector + 1) * 512).min(content.len()))
        .collect();
    let mut zero = |is_lost: &mut dyn FnMut(usize) -> bool| {
        let mut state = content.clone();
        for (index, sector) in sectors.iter().enumerate() {
            if is_lost(index) {
                state[sector.clone()].fill(0);
            }
        }
        states.push(state);
    };
    let mut random = seed | 1;
    for only in 0..sectors.len() {
        zero(&mut |sector| sector == only);
        zero(&mut |sector| sector != only);
        for _ in 0..3 {
            zero(&mut |_| {
                // xorshift64 (Marsaglia 2003).
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random & 1 == 0
            });
        }
    }
    states
}

/// Opens what is left and checks that `acked` and all before it is there.
fn recover(state: &[u8], acked: Option<Head>, what: &str) -> MemFs {
    let fs = MemFs::holding(state.to_vec());
    let (log, driver) = mesh_audit::open(config(), fs.clone(), support::clock)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let mut options = VerifyOptions::default().with_expect_head(log.head());
    options.expect_at_least = acked;
    drop((log, driver));
    let report =
        verify(&*fs.content(), &options).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(report.records > 0);
    fs
}

// threat 58
#[test]
fn no_answered_record_is_lost_in_any_crash_state() {
    let run = run();
    let mut tried = 0;
    for length in 0..=run.trace.len() {
        let acked = run
            .acked
            .iter()
            .rev()
            .find(|(at, _)| *at <= length)
            .map(|(_, head)| *head);
        for (index, state) in states(&run.trace[..length], Vec::new(), length as u64 + 1)
            .iter()
            .enumerate()
        {
            let what = format!("operation {length}, state {index}");
            let recovered = recover(state, acked, &what);
            tried += 1;
            if index % 16 != 3 {
                continue;
            }
            // The power goes again while the log is being repaired.
            let repair = recovered.with(|disk| disk.trace.clone());
            for again in 0..repair.len() {
                for state in states(&repair[..again], state.clone(), 7).iter().step_by(5) {
                    recover(state, acked, &format!("{what}, again after {again}"));
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 3000, "only {tried} states were tried");
}
