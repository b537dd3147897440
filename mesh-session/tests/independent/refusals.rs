//! What the one sends and the other must not take.

use std::sync::Arc;

use bytes::BytesMut;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::PeerKey;
use mesh_session::Responder;
use mesh_session::Resuming;
use mesh_session::Suite;

use crate::support::NOW;
use crate::support::ROUTE;
use crate::support::Setup;
use crate::support::instant;
use crate::support::seal;
use crate::support::turned;

const BOTH: [Suite; 2] = [Suite::PREFERRED, Suite::CLASSIC];

#[test]
fn python_refuses_changed_and_repeated_messages() {
    for suite in BOTH {
        let Some(mut sides) = Setup::new(&[suite]).rust_initiates() else {
            return;
        };
        let peer = sides.peer_key();
        let (waiting, init) = Initiator::start(&sides.local, &peer, b"rust's-token", NOW).unwrap();
        for at in spread(init.len()) {
            assert_eq!(sides.exchange(&turned(&init, at)), b"", "byte {at}");
            // A changed hash of the offer is that of no live one, which whoever asks may hear.
            let told = sides.python.hear_refused();
            let expected = if (4..36).contains(&at) {
                "stale offer"
            } else {
                "refused"
            };
            assert_eq!(told, expected, "byte {at}");
        }
        let reply = sides.exchange(&init);
        sides.python.hear_ok();
        assert_eq!(sides.exchange(&init), b"");
        assert_eq!(sides.python.hear_refused(), "refused");
        let session = Arc::new(waiting.finish(&reply, &sides.pinned, NOW).unwrap());

        let (_, message) = Resuming::start(&sides.local, &session, b"rust's-token", NOW).unwrap();
        for at in spread(message.len()) {
            assert_eq!(sides.exchange(&turned(&message, at)), b"", "byte {at}");
            let told = sides.python.hear_refused();
            let expected = if (2..18).contains(&at) {
                "no session"
            } else {
                "refused"
            };
            assert_eq!(told, expected, "byte {at}");
        }
        assert_ne!(sides.exchange(&message), b"");
        sides.python.hear_ok();
        assert_eq!(sides.exchange(&message), b"");
        assert_eq!(sides.python.hear_refused(), "refused");
    }
}

// threat 26
#[test]
fn rust_refuses_changed_and_repeated_messages() {
    for suite in BOTH {
        let Some(mut sides) = Setup::new(&[suite]).python_initiates() else {
            return;
        };
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        let init = sides.first_message(&responder);
        for at in spread(init.len()) {
            let refused = sides.answer(&responder, &turned(&init, at)).unwrap_err();
            let is_stale = matches!(refused, Error::StaleOffer);
            assert_eq!(is_stale, (4..36).contains(&at), "byte {at}: {refused}");
        }
        let (reply, session) = sides.answer(&responder, &init).unwrap();
        let repeated = sides.answer(&responder, &init).unwrap_err();
        assert!(matches!(repeated, Error::Replayed), "{repeated}");
        sides.send(&reply);
        sides.python.hear_ok();

        let session = Arc::new(session);
        sides.python.tell("resume python's-token");
        let message = sides.receive();
        for at in spread(message.len()) {
            sides
                .resume(&responder, &session, &turned(&message, at))
                .unwrap_err();
        }
        let (reply, _) = sides.resume(&responder, &session, &message).unwrap();
        let repeated = sides.resume(&responder, &session, &message).unwrap_err();
        assert!(matches!(repeated, Error::Replayed), "{repeated}");
        sides.send(&reply);
        sides.python.hear_ok();
    }
}

#[test]
fn python_refuses_changed_offers_and_replies() {
    for suite in BOTH {
        let Some(mut sides) = Setup::new(&[suite]).python_initiates() else {
            return;
        };
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        for at in spread(responder.offer().len()).step_by(4) {
            sides.python.tell("handshake");
            assert_eq!(sides.receive(), b"");
            sides.send(&turned(responder.offer(), at));
            assert_eq!(sides.python.hear_refused(), "refused", "byte {at}");
        }
        let init = sides.first_message(&responder);
        let (mut reply, _) = sides.answer(&responder, &init).unwrap();
        for at in spread(reply.len()).step_by(8) {
            sides.send(&turned(&reply, at));
            assert_eq!(sides.python.hear_refused(), "refused", "byte {at}");
            // Each try is another handshake: after a failure nothing is waited for.
            let init = sides.first_message(&responder);
            reply = sides.answer(&responder, &init).unwrap().0;
        }
        sides.send(&reply);
        sides.python.hear_ok();
        // The reply to another first message.
        sides.first_message(&responder);
        sides.send(&reply);
        assert_eq!(sides.python.hear_refused(), "refused");
    }
}

#[test]
fn rust_refuses_changed_offers_and_replies() {
    for suite in BOTH {
        let Some(mut sides) = Setup::new(&[suite]).rust_initiates() else {
            return;
        };
        let offer = sides.exchange(b"");
        sides.python.hear_ok();
        for at in spread(offer.len()) {
            PeerKey::from_offer(&sides.local, &turned(&offer, at), &sides.pinned).unwrap_err();
        }
        let peer = PeerKey::from_offer(&sides.local, &offer, &sides.pinned).unwrap();
        let start = || Initiator::start(&sides.local, &peer, b"rust's-token", NOW).unwrap();
        let tries: Vec<_> = (0..24).map(|_| start()).collect();
        let mut last = None;
        for (i, (waiting, init)) in tries.into_iter().enumerate() {
            let reply = sides.exchange(&init);
            sides.python.hear_ok();
            let at = reply.len() * i / 24;
            waiting
                .finish(&turned(&reply, at), &sides.pinned, NOW)
                .unwrap_err();
            last = Some(reply);
        }
        let (waiting, _) = Initiator::start(&sides.local, &peer, b"rust's-token", NOW).unwrap();
        waiting
            .finish(&last.unwrap(), &sides.pinned, NOW)
            .unwrap_err();
    }
}

// threat 24
#[test]
fn python_refuses_changed_repeated_and_reordered_records() {
    let Some(mut sides) = Setup::new(&[Suite::PREFERRED]).rust_initiates() else {
        return;
    };
    let session = sides.rust_begins();
    let (mut sealer, _answer) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
    let first = seal(&mut sealer, Flags::HEAD, b"some text");
    for at in 0..first.len() {
        // Another session than the one it has is not even looked for here.
        if !(4..20).contains(&at) {
            sides.deliver_in_vain(&turned(&first, at));
        }
    }
    sides.deliver(&first, (0, Flags::HEAD), b"some text");
    let second = seal(&mut sealer, Flags::NONE, b"second");
    let third = seal(&mut sealer, Flags::END, b"third");
    sides.deliver_in_vain(&third);
    // After that nothing of this stream opens, and others do.
    sides.deliver_in_vain(&second);
    sides.rust_calls(&session);
    let (mut sealer, _answer) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
    let once = seal(&mut sealer, Flags::END, b"once");
    sides.deliver(&once, (sealer.exchange(), Flags::END), b"once");
    sides.deliver_in_vain(&once);
    let (mut sealer, _answer) = session.begin(b"another route", instant()).unwrap();
    sides.deliver_in_vain(&seal(&mut sealer, Flags::END, b"elsewhere"));
}

// threat 24
#[test]
fn rust_refuses_changed_repeated_and_reordered_records() {
    for suite in [
        Suite::CLASSIC,
        Suite::new(
            mesh_session::Agreement::X25519,
            mesh_crypto::AeadAlgorithm::Aes192Gcm,
            mesh_session::MacCover::Record,
        ),
    ] {
        let Some(mut sides) = Setup::new(&[suite]).python_initiates() else {
            return;
        };
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        let session = sides.python_begins(&responder);
        let route = ROUTE.as_bytes();
        let number = sides.begin();
        let first = sides.let_say(number, Flags::HEAD, b"some text");
        for at in 0..first.len() {
            let mut changed = BytesMut::from(&*turned(&first, at));
            let refused = session.accept(route, &mut changed, instant());
            assert!(matches!(refused, Err(Error::Open)), "byte {at}");
        }
        let elsewhere = session.accept(b"elsewhere", &mut first.clone(), instant());
        assert!(matches!(elsewhere, Err(Error::Open)));
        let accepted = session.accept(route, &mut first.clone(), instant());
        let (_, mut opener, _) = accepted.unwrap();
        let repeated = session.accept(route, &mut first.clone(), instant());
        assert!(matches!(repeated, Err(Error::Open)));
        let mut second = sides.let_say(number, Flags::NONE, b"second");
        let mut third = sides.let_say(number, Flags::END, b"third");
        assert!(matches!(opener.open(&mut third), Err(Error::Open)));
        assert!(matches!(opener.open(&mut second), Err(Error::Open)));
        opener.finish().unwrap_err();
        sides.python_calls(&session);
    }
}

#[test]
fn clocks_too_far_apart_and_offers_of_an_earlier_run_are_refused() {
    let Some(mut sides) = Setup::new(&[Suite::PREFERRED]).python_initiates() else {
        return;
    };
    let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
    for (shift, is_good) in [
        ("60000", true),
        ("1", false),
        ("-120001", true),
        ("-1", false),
    ] {
        sides.python.ask(&format!("clock {shift}"));
        let init = sides.first_message(&responder);
        let answer = sides.answer(&responder, &init);
        match answer {
            Ok((reply, _)) if is_good => sides.send(&reply),
            Err(Error::Clock { .. }) if !is_good => sides.send(b""),
            other => panic!("shifted by {shift}: {other:?}"),
        }
        sides.python.hear();
    }
    // A responder of another run has another offer.
    let init = sides.first_message(&responder);
    let other = Responder::new(Arc::clone(&sides.local)).unwrap();
    let refused = sides.answer(&other, &init).unwrap_err();
    assert!(matches!(refused, Error::StaleOffer), "{refused}");
}

// threat 29
#[test]
fn a_suite_that_is_not_ones_own_is_refused() {
    let mut setup = Setup::new(&[Suite::PREFERRED, Suite::CLASSIC]);
    setup.suites = "0002".to_owned();
    let Some(mut sides) = setup.rust_initiates() else {
        return;
    };
    let offer = sides.exchange(b"");
    sides.python.hear_ok();
    let refused = PeerKey::from_offer(&sides.local, &offer, &sides.pinned).unwrap_err();
    assert!(matches!(refused, Error::Suite), "{refused}");
    let mut sides = setup.python_initiates().unwrap();
    let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
    sides.python.tell("handshake");
    sides.receive();
    sides.send(responder.offer());
    assert_eq!(sides.python.hear_refused(), "refused");
}

/// Every byte of the first 80 and the last 16, and some between.
fn spread(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |at| *at < 80 || at + 16 >= len || at % 41 == 0)
}
