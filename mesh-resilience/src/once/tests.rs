//! The memory as those see it who use it.

use super::*;

fn memory() -> (Once<&'static str>, Instant) {
    let now = tokio::time::Instant::now().into_std();
    let once = Once::new(OnceConfig::default(), [1; 16], now, None);
    (once.unwrap(), now)
}

fn attempt(once: &Once<&'static str>, now: Instant) -> Attempt<'static> {
    let lease = once.lease("a", now);
    Attempt::new("a", MessageId::new([1; 32]), [0; 32], Some(lease))
}

#[tokio::test]
async fn a_repeat_waits_for_the_first_and_gets_its_answer() {
    let (once, now) = memory();
    let attempt = attempt(&once, now);
    let Begin::First(ticket) = once.begin(&attempt, now) else {
        panic!("not the first");
    };
    let Begin::Running(running) = once.begin(&attempt, now) else {
        panic!("not running");
    };
    let first = async {
        tokio::task::yield_now().await;
        ticket.answer(Arc::new("done"), 4);
    };
    tokio::join!(running.settled(), first);
    let again = once.begin(&attempt, now);
    assert!(matches!(again, Begin::Answered(answer) if *answer == "done"));
    assert_eq!(
        once.snapshot(now),
        Snapshot {
            entries: 1,
            bytes: 4,
            callers: 1
        }
    );
}

#[test]
fn a_ticket_dropped_on_the_way_leaves_the_outcome_unknown_for_ever() {
    let (once, now) = memory();
    let attempt = attempt(&once, now);
    drop(once.begin(&attempt, now));
    for _ in 0..2 {
        assert!(matches!(once.begin(&attempt, now), Begin::Unknown));
    }
}

#[test]
fn what_provably_did_not_run_runs_when_it_comes_again() {
    let (once, now) = memory();
    let attempt = attempt(&once, now);
    for _ in 0..2 {
        let Begin::First(ticket) = once.begin(&attempt, now) else {
            panic!("not the first");
        };
        ticket.release();
    }
}

#[test]
fn a_window_of_nothing_and_an_answer_larger_than_all_make_no_memory() {
    let none = OnceConfig::default().with_window(std::time::Duration::ZERO);
    none.check().unwrap_err();
    OnceConfig::default()
        .with_max_bytes(10)
        .check()
        .unwrap_err();
}
