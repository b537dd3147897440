//! Epochs: keys change under way, and nothing is lost, repeated or reordered by it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;

use bytes::BytesMut;
use mesh_session::Config;
use mesh_session::EpochLimits;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Opener;
use mesh_session::Sealer;
use mesh_session::Session;
use proptest::prelude::*;

use crate::support::*;

const ROUTE: &[u8] = b"orders";
const SECOND: Duration = Duration::from_secs(1);

fn pair_with(limits: EpochLimits) -> (Arc<Session>, Arc<Session>) {
    let config = Config::default().with_epoch(limits);
    let Handshake { alice, bob, .. } = handshake_of(
        &local(ALICE, &ALICE_KEY, config.clone()),
        local(BOB, &BOB_KEY, config),
    );
    (alice, bob)
}

fn pair() -> (Arc<Session>, Arc<Session>) {
    pair_with(EpochLimits::default())
}

/// A request and its answer, one record each.
fn call(alice: &Arc<Session>, bob: &Arc<Session>, after: Duration) {
    let (mut sealer, mut opener) = alice.begin(ROUTE, now() + after).unwrap();
    let mut record = seal(&mut sealer, Flags::END, b"question");
    let (mut answer, reader, _) = bob.accept(ROUTE, &mut record, now() + after).unwrap();
    reader.finish().unwrap();
    assert_eq!(record.as_ref(), b"question");
    let mut record = seal(&mut answer, Flags::END, b"answer");
    opener.open(&mut record).unwrap();
    assert_eq!(record.as_ref(), b"answer");
}

#[test]
fn the_peer_follows_whoever_goes_on_first() {
    let (alice, bob) = pair();
    call(&alice, &bob, Duration::ZERO);
    alice.advance().unwrap();
    assert_eq!((alice.epoch(), bob.epoch()), (1, 0));
    call(&alice, &bob, Duration::ZERO);
    assert_eq!((alice.epoch(), bob.epoch()), (1, 1));
    // The responder's answer takes the initiator along.
    bob.advance().unwrap();
    call(&alice, &bob, Duration::ZERO);
    assert_eq!((alice.epoch(), bob.epoch()), (2, 2));
    // Both at once are in the same epoch.
    alice.advance().unwrap();
    bob.advance().unwrap();
    call(&alice, &bob, Duration::ZERO);
    assert_eq!((alice.epoch(), bob.epoch()), (3, 3));
}

#[test]
fn records_blocks_and_age_each_ask_for_the_next_epoch() {
    for limits in [
        EpochLimits::default().with_records(4),
        EpochLimits::default().with_blocks(12),
        EpochLimits::default().with_age(2 * SECOND),
    ] {
        let (alice, bob) = pair_with(limits);
        call(&alice, &bob, Duration::ZERO);
        assert_eq!(alice.epoch(), 0);
        call(&alice, &bob, SECOND);
        call(&alice, &bob, 2 * SECOND);
        assert_eq!((alice.epoch(), bob.epoch()), (1, 1), "{limits:?}");
    }
}

// threat 27: the same exchange number never comes twice, whatever the keys are.
#[test]
fn numbers_and_the_window_go_on_through_epochs() {
    let (alice, bob) = pair();
    let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
    let old = seal(&mut sealer, Flags::END, b"x");
    bob.accept(ROUTE, &mut old.clone(), now()).unwrap();
    alice.advance().unwrap();
    let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
    assert_eq!(sealer.exchange(), 1);
    let new = seal(&mut sealer, Flags::END, b"x");
    assert_eq!(new[1], 1);
    bob.accept(ROUTE, &mut new.clone(), now()).unwrap();
    for record in [old, new] {
        let again = bob.accept(ROUTE, &mut record.clone(), now());
        assert!(matches!(again, Err(Error::Open)));
    }
}

#[test]
fn an_exchange_of_an_older_epoch_is_taken_until_its_overlap_ends() {
    let (alice, bob) = pair_with(EpochLimits::default().with_overlap(10 * SECOND));
    let late = |_: usize| {
        seal(
            &mut alice.begin(ROUTE, now()).unwrap().0,
            Flags::END,
            b"late",
        )
    };
    let late: Vec<_> = (0..3).map(late).collect();
    for _ in 0..3 {
        alice.advance().unwrap();
        call(&alice, &bob, Duration::ZERO);
    }
    assert_eq!(bob.epoch(), 3);
    let accept = |at: usize, after| bob.accept(ROUTE, &mut late[at].clone(), now() + after);
    accept(0, Duration::ZERO).unwrap();
    accept(1, 9 * SECOND).unwrap();
    assert!(matches!(accept(2, 10 * SECOND), Err(Error::Open)));
}

#[test]
fn a_long_stream_changes_its_keys_under_way_and_a_slow_reader_still_reads_it() {
    let (alice, bob) = pair_with(EpochLimits::default().with_overlap(SECOND));
    let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
    let mut first = seal(&mut sealer, Flags::HEAD, b"0");
    let (mut answer, mut reader, _) = bob.accept(ROUTE, &mut first, now()).unwrap();
    let mut under_way = VecDeque::new();
    for number in 1..=16_u8 {
        alice.advance().unwrap();
        under_way.push_back(seal(&mut sealer, Flags::NONE, &[number]));
        // Other calls take both ends far ahead of what the reader has seen.
        call(&alice, &bob, 2 * SECOND * u32::from(number));
    }
    assert_eq!((alice.epoch(), bob.epoch()), (16, 16));
    for number in 1..=16_u8 {
        let mut record = under_way.pop_front().unwrap();
        assert_eq!(record[1], number);
        reader.open(&mut record).unwrap();
        assert_eq!(record.as_ref(), [number]);
    }
    assert_eq!(seal(&mut answer, Flags::END, b"")[1], 16);
    let mut last = seal(&mut sealer, Flags::END, b"");
    reader.open(&mut last).unwrap();
    reader.finish().unwrap();
}

#[test]
fn a_peer_that_heard_nothing_of_an_epoch_is_not_shut_out() {
    let (alice, bob) = pair();
    let late = now() + Duration::from_mins(5);
    let ask = |at| {
        let mut record = seal(&mut alice.begin(ROUTE, at).unwrap().0, Flags::END, b"x");
        bob.accept(ROUTE, &mut record, at).unwrap().0
    };
    let mut answer = ask(now());
    bob.advance().unwrap();
    // What would have told her never arrives.
    drop(seal(&mut answer, Flags::END, b"lost"));
    drop(ask(now()));
    drop(ask(late));
    call(&alice, &bob, Duration::from_secs(301));
    assert_eq!((alice.epoch(), bob.epoch()), (1, 1));
}

#[test]
fn a_stream_that_was_silent_for_many_epochs_goes_on() {
    let (alice, bob) = pair();
    let (mut asking, mut answers) = alice.begin(ROUTE, now()).unwrap();
    let mut record = seal(&mut asking, Flags::NONE, b"x");
    let (mut answering, mut questions, _) = bob.accept(ROUTE, &mut record, now()).unwrap();
    for _ in 0..100 {
        alice.advance().unwrap();
        call(&alice, &bob, Duration::ZERO);
    }
    questions
        .open(&mut seal(&mut asking, Flags::END, b"y"))
        .unwrap();
    answers
        .open(&mut seal(&mut answering, Flags::END, b"z"))
        .unwrap();
}

// threat 24
#[test]
fn a_stream_does_not_go_back_to_an_older_epoch() {
    let (alice, bob) = pair();
    let (mut sealer, _) = alice.begin(ROUTE, now()).unwrap();
    let mut first = seal(&mut sealer, Flags::NONE, b"");
    let (_, mut reader, _) = bob.accept(ROUTE, &mut first, now()).unwrap();
    alice.advance().unwrap();
    reader
        .open(&mut seal(&mut sealer, Flags::NONE, b""))
        .unwrap();
    let mut relabelled = seal(&mut sealer, Flags::NONE, b"");
    relabelled[1] = 0;
    assert!(matches!(reader.open(&mut relabelled), Err(Error::Open)));
}

// What can't make the MAC of the next epoch must not move the session.
#[test]
fn a_forged_epoch_moves_nothing() {
    let (alice, bob) = pair();
    let record = seal(&mut alice.begin(ROUTE, now()).unwrap().0, Flags::END, b"x");
    for epoch in (1..=u8::MAX).chain([4, 3, 2, 1]) {
        let mut forged = record.clone();
        forged[1] = epoch;
        assert!(matches!(
            bob.accept(ROUTE, &mut forged, now()),
            Err(Error::Open)
        ));
    }
    assert_eq!(bob.epoch(), 0);
    bob.accept(ROUTE, &mut record.clone(), now()).unwrap();
}

#[test]
fn nobody_runs_away_from_a_silent_peer() {
    let (alice, bob) = pair();
    for _ in 0..10 {
        alice.advance().unwrap();
    }
    assert_eq!(alice.epoch(), 4);
    call(&alice, &bob, Duration::ZERO);
    assert_eq!(bob.epoch(), 4);
    alice.advance().unwrap();
    assert_eq!(alice.epoch(), 5);
}

#[test]
fn after_the_last_epoch_the_session_begins_nothing_more() {
    let (alice, bob) = pair_with(EpochLimits::default().with_records(2));
    for _ in 0..256 {
        assert!(!alice.is_exhausted());
        call(&alice, &bob, Duration::ZERO);
    }
    assert_eq!((alice.epoch(), bob.epoch()), (255, 255));
    assert!(alice.is_exhausted());
    assert!(matches!(alice.begin(ROUTE, now()), Err(Error::Exhausted)));
    alice.advance().unwrap();
    assert_eq!(alice.epoch(), 255);
}

/// One exchange under way: what each side still has to say, and what is on the wire.
struct Stream {
    alice: (Sealer, Opener),
    bob: Option<(Sealer, Opener)>,
    wire: [VecDeque<BytesMut>; 2],
    sent: [u32; 2],
    read: [u32; 2],
}

impl Stream {
    /// The epoch of the oldest record under way.
    fn oldest(&self) -> u8 {
        let under_way = self.wire.iter().flatten().map(|record| record[1]);
        under_way.min().unwrap_or(u8::MAX)
    }

    fn say(&mut self, side: usize) {
        let sealer = if side == 0 {
            &mut self.alice.0
        } else if let Some((sealer, _)) = &mut self.bob {
            sealer
        } else {
            return;
        };
        let record = seal(sealer, Flags::NONE, &self.sent[side].to_be_bytes());
        self.wire[side].push_back(record);
        self.sent[side] += 1;
    }

    fn hear(&mut self, side: usize, bob: &Arc<Session>) {
        let Some(mut record) = self.wire[1 - side].pop_front() else {
            return;
        };
        if side == 0 {
            self.alice.1.open(&mut record).unwrap();
        } else if let Some((_, opener)) = &mut self.bob {
            opener.open(&mut record).unwrap();
        } else {
            let (sealer, opener, _) = bob.accept(ROUTE, &mut record, now()).unwrap();
            self.bob = Some((sealer, opener));
        }
        assert_eq!(record.as_ref(), self.read[1 - side].to_be_bytes());
        self.read[1 - side] += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // Streams that begin, talk, wait and change keys in any order: every record arrives, once and in order.
    #[test]
    fn nothing_is_lost_or_reordered_however_the_keys_change(
        steps in proptest::collection::vec((0_u8..10, 0_usize..6, 0_usize..2), 1..300),
        records in 1_u64..20,
    ) {
        let (alice, bob) = pair_with(EpochLimits::default().with_records(records.max(3)));
        let mut streams: Vec<Stream> = Vec::new();
        for (what, stream, side) in steps {
            if alice.epoch() > 200 || bob.epoch() > 200 {
                break;
            }
            // Sixteen epochs behind is as far as a receiver looks back.
            let newest = alice.epoch().max(bob.epoch());
            let is_far = streams.iter().any(|stream| newest.saturating_sub(stream.oldest()) > 8);
            match what {
                0 if is_far => {}
                0 => [&alice, &bob][side].advance().unwrap(),
                1 | 2 if streams.len() < 6 => streams.push(Stream {
                    alice: alice.begin(ROUTE, now()).unwrap(),
                    bob: None,
                    wire: [VecDeque::new(), VecDeque::new()],
                    sent: [0; 2],
                    read: [0; 2],
                }),
                3..=6 => if let Some(stream) = streams.get_mut(stream) { stream.say(side) },
                _ => if let Some(stream) = streams.get_mut(stream) { stream.hear(side, &bob) },
            }
        }
        for stream in &mut streams {
            for side in [1, 0, 1, 0] {
                while !stream.wire[1 - side].is_empty() {
                    stream.hear(side, &bob);
                }
            }
            prop_assert_eq!(stream.sent, stream.read);
        }
    }
}

/// Answers of the responder's next epoch that all arrive at once: one of them takes the session there.
#[test]
fn answers_that_race_into_the_next_epoch_all_open() {
    let (alice, bob) = pair();
    for _ in 0..200 {
        let mut answers = Vec::new();
        for _ in 0..8 {
            let (mut asking, opener) = alice.begin(ROUTE, now()).unwrap();
            let mut record = seal(&mut asking, Flags::END, b"x");
            let (answering, _, _) = bob.accept(ROUTE, &mut record, now()).unwrap();
            answers.push((answering, opener));
        }
        bob.advance().unwrap();
        let together = Barrier::new(answers.len());
        std::thread::scope(|scope| {
            for (mut answering, mut opener) in answers {
                let together = &together;
                scope.spawn(move || {
                    let mut record = seal(&mut answering, Flags::END, b"y");
                    together.wait();
                    opener.open(&mut record).unwrap();
                });
            }
        });
    }
    assert_eq!((alice.epoch(), bob.epoch()), (200, 200));
}

#[test]
fn a_peer_that_steps_for_the_sake_of_stepping_costs_little() {
    const SESSIONS: usize = 40;
    let run = || {
        let (alice, bob) = pair();
        // A stream that stays at the first epoch would hold all that follow.
        let (mut asking, _) = alice.begin(ROUTE, now()).unwrap();
        let mut record = seal(&mut asking, Flags::NONE, b"x");
        let (_, stuck, _) = bob.accept(ROUTE, &mut record, now()).unwrap();
        for _ in 0..60 {
            for _ in 0..4 {
                alice.advance().unwrap();
            }
            call(&alice, &bob, Duration::ZERO);
        }
        assert_eq!(bob.epoch(), 240);
        (bob, stuck)
    };
    let warm_up: Vec<_> = (0..SESSIONS).map(|_| run()).collect();
    let before = resident_bytes();
    let held: Vec<_> = (0..SESSIONS).map(|_| run()).collect();
    let each = resident_bytes().saturating_sub(before) / SESSIONS;
    assert!(each < 128 * 1_024, "{each} bytes a session");
    drop((warm_up, held));
}

// threat 27
#[test]
fn keys_change_under_threads_without_a_lost_call() {
    let (alice, bob) = pair_with(EpochLimits::default().with_records(200));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| call(&alice, &bob, Duration::ZERO)));
        }
    });
    assert!(alice.epoch() >= 10, "{}", alice.epoch());
    assert_eq!(bob.counters().refused_records, 0);
    assert_eq!(bob.counters().exchanges, 2_000);
}
