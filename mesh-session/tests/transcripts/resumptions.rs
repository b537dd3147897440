//! Resumptions: the message and its reply.

use std::sync::Arc;

use mesh_session::Config;
use mesh_session::Error;
use mesh_session::Local;
use mesh_session::Resuming;
use mesh_session::Session;

use crate::change::Fields;
use crate::change::Layout;
use crate::change::change;
use crate::dice::Dice;
use crate::handshakes::SUITES;
use crate::support::*;

pub(crate) struct Resumptions(Vec<Resumable>);

/// A session of one suite, and messages of it and of another session that were used up.
struct Resumable {
    alice: Arc<Local>,
    handshake: Handshake,
    old: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Resumptions {
    pub(crate) fn new() -> Self {
        Self(SUITES.map(Resumable::new).into())
    }

    pub(crate) fn message(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        let with = dice.of(&self.0);
        let (_, good) = with.start();
        let (other, _) = dice.of(&with.old);
        let (changed, how) = change(dice, (&good, other), message_layout);
        with.answer(&changed).unwrap_err();
        if dice.one_in(16) {
            with.answer(&good).unwrap();
            with.answer(&good).unwrap_err();
        }
        ("resumption", how)
    }

    pub(crate) fn reply(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        let with = dice.of(&self.0);
        let (resuming, message) = with.start();
        let (reply, _) = with.answer(&message).unwrap();
        let (_, other) = dice.of(&with.old);
        let (changed, how) = change(dice, (&reply, other), reply_layout);
        resuming.finish(&changed, &Pinned::bob(), NOW).unwrap_err();
        ("reply to a resumption", how)
    }
}

impl Resumable {
    fn new(suite: mesh_session::Suite) -> Self {
        let config = Config::default()
            .with_suites(vec![suite])
            .with_replay_capacity(REMEMBERED);
        let [alice, bob] = [(ALICE, &ALICE_KEY), (BOB, &BOB_KEY)]
            .map(|(name, key)| local(name, key, config.clone()));
        let agree = || Self {
            alice: Arc::clone(&alice),
            handshake: handshake_of(&alice, Arc::clone(&bob)),
            old: Vec::new(),
        };
        let (mut made, other) = (agree(), agree());
        for at in 0..8 {
            let from = if at % 2 == 0 { &made } else { &other };
            let (_, message) = from.start();
            let (reply, _) = from.answer(&message).unwrap();
            made.old.push((message, reply));
        }
        made
    }

    fn start(&self) -> (Resuming, Vec<u8>) {
        Resuming::start(&self.alice, &self.handshake.alice, b"alice's token", NOW).unwrap()
    }

    fn answer(&self, message: &[u8]) -> Result<(Vec<u8>, Session), Error> {
        let with = &self.handshake;
        let at = (&*with.bob, message);
        with.responder
            .resume(at, b"bob's token", &Pinned::alice(), NOW)
    }
}

fn message_layout(message: &[u8]) -> Layout {
    Fields::of(message)
        .fixed(&[1, 1, 16, 8, 32, 32, ek_len(message)])
        .vec()
        .end()
}

/// The suite is not in the message; a hybrid one is longer.
fn ek_len(message: &[u8]) -> usize {
    if message.len() > 1_184 { 1_184 } else { 0 }
}

fn reply_layout(reply: &[u8]) -> Layout {
    let kem = if reply.len() > 1_088 { 1_088 } else { 0 };
    Fields::of(reply).fixed(&[1, 1, 32, 32, kem]).vec().end()
}

/// The clock stands still here, so a long run must fit.
pub(crate) const REMEMBERED: usize = 1 << 20;
