//! Agreement: suites, key sizes, resumption and cookies.

use std::sync::Arc;

use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_session::CookieMint;
use mesh_session::Initiator;
use mesh_session::Responder;
use mesh_session::Suite;
use mesh_session::challenge;
use mesh_session::parse_challenge;
use mesh_session::parse_with_cookie;
use mesh_session::with_cookie;

use crate::support::NOW;
use crate::support::Setup;
use crate::support::code;

#[test]
fn every_suite_is_agreed_on_when_rust_begins() {
    for suite in Suite::all() {
        let Some(mut sides) = Setup::new(&[suite]).rust_initiates() else {
            return;
        };
        let session = sides.rust_begins();
        sides.rust_calls(&session);
    }
}

#[test]
fn every_suite_is_agreed_on_when_python_begins() {
    for suite in Suite::all() {
        let Some(mut sides) = Setup::new(&[suite]).python_initiates() else {
            return;
        };
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        let session = sides.python_begins(&responder);
        sides.python_calls(&session);
    }
}

#[test]
fn keys_of_all_sizes_meet() {
    let setup = Setup::new(&[Suite::PREFERRED]);
    for (rust, python) in [(3072, 2048), (2048, 4096), (4096, 3072)] {
        let Some(mut sides) = setup.clone().with_bits(rust, python).rust_initiates() else {
            return;
        };
        let session = sides.rust_begins();
        sides.rust_calls(&session);
        let mut sides = setup
            .clone()
            .with_bits(rust, python)
            .python_initiates()
            .unwrap();
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        let session = sides.python_begins(&responder);
        sides.python_calls(&session);
    }
}

#[test]
fn the_initiators_own_order_decides() {
    let mut setup = Setup::new(&[Suite::PREFERRED, Suite::CLASSIC]);
    setup.suites = "0002,0001,0101".to_owned();
    let Some(mut sides) = setup.python_initiates() else {
        return;
    };
    let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
    assert_eq!(code(sides.python_begins(&responder).suite()), "0001");
    let mut sides = setup.rust_initiates().unwrap();
    assert_eq!(code(sides.rust_begins().suite()), "0101");
}

#[test]
fn sessions_follow_each_other_without_an_rsa_key() {
    for suite in [Suite::PREFERRED, Suite::CLASSIC] {
        let Some(mut sides) = Setup::new(&[suite]).rust_initiates() else {
            return;
        };
        let first = sides.rust_begins();
        let second = sides.rust_resumes(&first);
        let third = sides.rust_resumes(&second);
        sides.rust_calls(&third);
        // The one before is not changed.
        sides.rust_calls(&second);
        assert_eq!(third.authenticated(), first.authenticated());

        let mut sides = Setup::new(&[suite]).python_initiates().unwrap();
        let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
        let first = sides.python_begins(&responder);
        let second = sides.python_resumes(&responder, &first);
        let third = sides.python_resumes(&responder, &second);
        sides.python_calls(&third);
        sides.python_calls(&first);
    }
}

#[test]
fn a_cookie_is_shown_where_python_asks_for_one() {
    let setup = Setup::new(&[Suite::PREFERRED]).with_options(&["--cookies"]);
    let Some(mut sides) = setup.rust_initiates() else {
        return;
    };
    let peer = sides.peer_key();
    let (waiting, init) = Initiator::start(&sides.local, &peer, b"rust's-token", NOW).unwrap();
    let asked = sides.exchange(&init);
    assert_eq!(sides.python.hear_ok(), "kind 6");
    let cookie = parse_challenge(&asked).unwrap();
    // A cookie of another message, or a changed one, leads to a challenge again.
    let mut other = cookie;
    other[39] ^= 1;
    sides.exchange(&with_cookie(&other, &init));
    assert_eq!(sides.python.hear_ok(), "kind 6");
    let reply = sides.exchange(&with_cookie(&cookie, &init));
    sides.python.hear_ok();
    let session = Arc::new(waiting.finish(&reply, &sides.pinned, NOW).unwrap());
    sides.rust_calls(&session);
}

#[test]
fn a_cookie_is_shown_where_rust_asks_for_one() {
    let Some(mut sides) = Setup::new(&[Suite::PREFERRED]).python_initiates() else {
        return;
    };
    let responder = Responder::new(Arc::clone(&sides.local)).unwrap();
    let mint = CookieMint::new(aws_lc(), Arc::new(SystemRandom::new()), NOW).unwrap();
    let init = sides.first_message(&responder);
    sides.send(&challenge(&mint.mint(b"here", &init, NOW)));
    let again = sides.receive();
    let (cookie, message) = parse_with_cookie(&again).unwrap();
    assert_eq!(message, init);
    mint.check(&cookie, b"here", message, NOW).unwrap();
    let (reply, session) = sides.answer(&responder, message).unwrap();
    sides.send(&reply);
    sides.python.hear_ok();
    sides.python_calls(&Arc::new(session));

    // A second challenge is one too many.
    let init = sides.first_message(&responder);
    for _ in 0..2 {
        sides.send(&challenge(&mint.mint(b"here", &init, NOW)));
    }
    parse_with_cookie(&sides.receive()).unwrap();
    assert_eq!(sides.python.hear_refused(), "refused");
}
