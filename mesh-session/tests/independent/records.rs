//! Exchanges: order, epochs and the end of a session.

use std::sync::Arc;

use bytes::BytesMut;
use mesh_session::Config;
use mesh_session::EpochLimits;
use mesh_session::Flags;
use mesh_session::Opener;
use mesh_session::Responder;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::Suite;

use crate::support::ROUTE;
use crate::support::Setup;
use crate::support::Sides;
use crate::support::instant;
use crate::support::seal;

/// Both kinds of MAC and two ciphers.
const SUITES: [Suite; 2] = [
    Suite::PREFERRED,
    Suite::new(
        mesh_session::Agreement::X25519,
        mesh_crypto::AeadAlgorithm::Aes128Gcm,
        mesh_session::MacCover::HeaderAndTag,
    ),
];

/// An exchange that is under way, whoever began it.
struct UnderWay {
    sides: Sides,
    session: Arc<Session>,
    number: u64,
    sealer: Sealer,
    opener: Opener,
}

impl UnderWay {
    fn of_rust(suite: Suite) -> Option<Self> {
        let mut sides = Setup::new(&[suite]).rust_initiates()?;
        let session = sides.rust_begins();
        let (mut sealer, opener) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
        sides.say(&mut sealer, Flags::HEAD, b"begins");
        Some(Self {
            number: sealer.exchange(),
            sides,
            session,
            sealer,
            opener,
        })
    }

    fn of_python(suite: Suite) -> Option<Self> {
        let mut sides = Setup::new(&[suite]).python_initiates()?;
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        let session = sides.python_begins(&responder);
        let number = sides.begin();
        let mut record = sides.let_say(number, Flags::HEAD, b"begins");
        let accepted = session.accept(ROUTE.as_bytes(), &mut record, instant());
        let (sealer, opener, _) = accepted.unwrap();
        Some(Self {
            sides,
            session,
            number,
            sealer,
            opener,
        })
    }

    /// A record each way; gives their epochs.
    #[track_caller]
    fn both_ways(&mut self) -> (u8, u8) {
        let ours = self.say(b"from rust");
        (ours, self.hear(b"from python"))
    }

    #[track_caller]
    fn say(&mut self, text: &[u8]) -> u8 {
        self.sides.say(&mut self.sealer, Flags::NONE, text)
    }

    #[track_caller]
    fn hear(&mut self, text: &[u8]) -> u8 {
        let expected = (Flags::NONE, text);
        self.sides.hear(self.number, &mut self.opener, expected)
    }

    #[track_caller]
    fn python_advances(&mut self) {
        self.sides.python.ask("advance");
    }

    #[track_caller]
    fn is_in(&mut self, epoch: u8) {
        let state = self.sides.python.ask("state");
        let python = state.split(' ').next().unwrap();
        assert_eq!((self.session.epoch(), python), (epoch, &*epoch.to_string()));
    }
}

#[test]
fn either_side_goes_on_in_the_middle_of_a_stream_and_the_other_follows() {
    for suite in SUITES {
        for begin in [UnderWay::of_rust, UnderWay::of_python] {
            let Some(mut call) = begin(suite) else {
                return;
            };
            assert_eq!(call.both_ways(), (0, 0));
            call.session.advance().unwrap();
            assert_eq!(call.both_ways(), (1, 1));
            call.is_in(1);
            call.python_advances();
            assert_eq!(call.hear(b"first"), 2);
            assert_eq!(call.both_ways(), (2, 2));
            call.is_in(2);
            // Both at once are in the same one.
            call.session.advance().unwrap();
            call.python_advances();
            assert_eq!(call.both_ways(), (3, 3));
            call.is_in(3);
        }
    }
}

#[test]
fn a_session_goes_through_all_of_its_epochs() {
    for begin in [UnderWay::of_rust, UnderWay::of_python] {
        let Some(mut call) = begin(Suite::CLASSIC) else {
            return;
        };
        for epoch in 1..=u8::MAX {
            if epoch % 2 == 0 {
                call.session.advance().unwrap();
                assert_eq!(call.both_ways(), (epoch, epoch));
            } else {
                call.python_advances();
                assert_eq!(call.hear(b"first"), epoch);
                assert_eq!(call.say(b"then"), epoch);
            }
        }
        call.is_in(u8::MAX);
        // There is none behind it: Rust stays where it is, and Python says so.
        call.session.advance().unwrap();
        call.sides.python.tell("advance");
        call.sides.python.hear_refused();
        assert_eq!(call.both_ways(), (255, 255));
    }
}

#[test]
fn keys_that_have_done_their_share_are_followed_by_others_on_whichever_side_counts_first() {
    // Rust counts to four and Python never; then the other way round.
    let epoch = EpochLimits::default().with_records(4);
    let mut setup = Setup::new(&[Suite::CLASSIC]);
    setup.config = Config::default()
        .with_suites(vec![Suite::CLASSIC])
        .with_epoch(epoch);
    let other = Setup::new(&[Suite::CLASSIC]).with_options(&["--records", "4"]);
    for setup in [setup, other] {
        let Some(mut sides) = setup.rust_initiates() else {
            return;
        };
        let session = sides.rust_begins();
        for _ in 0..20 {
            sides.rust_calls(&session);
        }
        assert!((5..=20).contains(&session.epoch()), "{}", session.epoch());

        let mut sides = setup.python_initiates().unwrap();
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        let session = sides.python_begins(&responder);
        for _ in 0..20 {
            sides.python_calls(&session);
        }
        assert!((5..=20).contains(&session.epoch()), "{}", session.epoch());
    }
}

#[test]
fn exchanges_of_an_older_epoch_arrive_late_and_streams_keep_their_keys() {
    let Some(mut sides) = Setup::new(&[Suite::PREFERRED]).rust_initiates() else {
        return;
    };
    let session = sides.rust_begins();
    let both = Flags::HEAD | Flags::END;
    let (mut early, _answer) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
    let late = seal(&mut early, both, b"late");
    let (mut slow, mut answer) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
    sides.say(&mut slow, Flags::HEAD, b"begins");
    let first = seal(&mut slow, Flags::NONE, b"of epoch 0");
    let kept = sides.let_say(slow.exchange(), Flags::HEAD, b"an answer of epoch 0");
    for _ in 0..3 {
        session.advance().unwrap();
        sides.rust_calls(&session);
    }
    assert_eq!(sides.deliver(&late, (0, both), b"late"), 0);
    let slow_is = (slow.exchange(), Flags::NONE);
    assert_eq!(sides.deliver(&first, slow_is, b"of epoch 0"), 0);
    let mut kept = BytesMut::from(&*kept);
    assert_eq!(answer.open(&mut kept).unwrap(), Flags::HEAD);
    assert_eq!(kept, "an answer of epoch 0");
    // And past the overlap, by Python's clock, no exchange begins in it any more.
    let (mut older, _answer) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
    let older = seal(&mut older, both, b"too late");
    session.advance().unwrap();
    sides.rust_calls(&session);
    sides.python.ask("clock 30001");
    sides.deliver_in_vain(&older);
    sides.rust_calls(&session);
}

#[test]
fn records_of_four_epochs_may_overtake_each_other_when_rust_begins() {
    let Some(mut sides) = Setup::new(&[Suite::CLASSIC]).rust_initiates() else {
        return;
    };
    let session = sides.rust_begins();
    let both = Flags::HEAD | Flags::END;
    let mut records = Vec::new();
    for _ in 0..=4 {
        let (mut sealer, _answer) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
        records.push((sealer.exchange(), seal(&mut sealer, both, b"text")));
        session.advance().unwrap();
    }
    // Further than four it does not go before it has heard the other side.
    assert_eq!(session.epoch(), 4);
    for (epoch, (number, record)) in records.iter().enumerate().rev() {
        let found = sides.deliver(record, (*number, both), b"text");
        assert_eq!(usize::from(found), epoch);
    }
    sides.rust_calls(&session);
    session.advance().unwrap();
    sides.rust_calls(&session);
    assert_eq!(session.epoch(), 5);
}

#[test]
fn records_of_four_epochs_may_overtake_each_other_when_python_begins() {
    let Some(mut sides) = Setup::new(&[Suite::CLASSIC]).python_initiates() else {
        return;
    };
    let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
    let session = sides.python_begins(&responder);
    let mut records = Vec::new();
    for epoch in 0..=4 {
        let number = sides.begin();
        records.push((number, sides.let_say(number, Flags::END, b"text")));
        if epoch < 4 {
            sides.python.ask("advance");
        }
    }
    sides.python.tell("advance");
    sides.python.hear_refused();
    for (number, mut record) in records.into_iter().rev() {
        let accepted = session.accept(ROUTE.as_bytes(), &mut record, instant());
        let (_, _, first) = accepted.unwrap();
        assert_eq!((first.exchange, &*record), (number, &b"text"[..]));
        assert_eq!(session.epoch(), 4);
    }
    sides.python_calls(&session);
}

#[test]
fn two_hundred_exchanges_arrive_in_any_order_when_rust_begins() {
    let Some(mut sides) = Setup::new(&[Suite::PREFERRED]).rust_initiates() else {
        return;
    };
    let session = sides.rust_begins();
    let mut begun: Vec<_> = (0..200)
        .map(|_| session.begin(ROUTE.as_bytes(), instant()).unwrap())
        .collect();
    let text = |number: u64| format!("exchange {number}").into_bytes();
    for i in mixed(begun.len()) {
        let sealer = &mut begun[i].0;
        let number = sealer.exchange();
        sides.say(sealer, Flags::HEAD, &text(number));
    }
    for i in mixed(begun.len()).rev() {
        let (sealer, opener) = &mut begun[i];
        let number = sealer.exchange();
        sides.hear(number, opener, (Flags::HEAD, &text(number + 1000)));
        sides.say(sealer, Flags::END, b"");
        sides.hear(number, opener, (Flags::END, b""));
        opener.finish().unwrap();
    }
    assert_eq!(sides.python.ask("state"), "0 0 0 False");
}

#[test]
fn two_hundred_exchanges_arrive_in_any_order_when_python_begins() {
    let Some(mut sides) = Setup::new(&[Suite::PREFERRED]).python_initiates() else {
        return;
    };
    let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
    let session = sides.python_begins(&responder);
    let numbers: Vec<u64> = (0..200).map(|_| sides.begin()).collect();
    let records: Vec<_> = numbers
        .iter()
        .map(|number| sides.let_say(*number, Flags::HEAD, b"begins"))
        .collect();
    for i in mixed(numbers.len()) {
        let accepted = session.accept(ROUTE.as_bytes(), &mut records[i].clone(), instant());
        let (mut sealer, mut opener, first) = accepted.unwrap();
        assert_eq!(first.exchange, numbers[i]);
        sides.say(&mut sealer, Flags::HEAD, b"answers");
        sides.hear(numbers[i], &mut opener, (Flags::END, b"ends"));
        sides.say(&mut sealer, Flags::END, b"");
        opener.finish().unwrap();
    }
    assert_eq!(sides.python.ask("state"), "0 0 0 False");
}

#[test]
fn large_records_and_long_streams_arrive_whole() {
    for suite in SUITES {
        let Some(mut call) = UnderWay::of_rust(suite) else {
            return;
        };
        for size in [0, 1, 15, 16, 17, 1000, 65_536, 1 << 20] {
            let text: Vec<u8> = (0..size).map(|i: u32| i.to_be_bytes()[3]).collect();
            call.say(&text);
            call.hear(&text);
        }
        for _ in 0..200 {
            call.both_ways();
        }
    }
}

#[test]
fn a_session_is_closed_by_a_word_of_either_application() {
    let Some(mut sides) = Setup::new(&[Suite::PREFERRED]).rust_initiates() else {
        return;
    };
    let session = sides.rust_begins();
    let (mut sealer, _) = session.begin(b"mesh-session close", instant()).unwrap();
    let record = seal(&mut sealer, Flags::END, b"");
    sides.python.tell("receive mesh-session close");
    sides.send(&record);
    assert_eq!(sides.python.hear_ok(), "0 1 0");
    assert!(sides.python.ask("state").ends_with("True"));

    let mut sides = Setup::new(&[Suite::PREFERRED]).python_initiates().unwrap();
    let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
    let session = sides.python_begins(&responder);
    sides.python.ask("close");
    let mut record = BytesMut::from(&*sides.receive());
    let (_, opener, first) = session
        .accept(b"mesh-session close", &mut record, instant())
        .unwrap();
    opener.finish().unwrap();
    assert_eq!((first.flags, record.len()), (Flags::END, 0));
}

/// The numbers below `n`, in an order that looks like none.
fn mixed(n: usize) -> impl DoubleEndedIterator<Item = usize> {
    (0..n).map(move |i| i * 77 % n)
}
