//! Full handshakes: offer, first message, reply.

use std::sync::Arc;

use mesh_session::Config;
use mesh_session::Error;
use mesh_session::Initiator;
use mesh_session::Local;
use mesh_session::PeerKey;
use mesh_session::Responder;
use mesh_session::Session;
use mesh_session::Suite;

use crate::change::Fields;
use crate::change::Layout;
use crate::change::change;
use crate::dice::Dice;
use crate::resumptions::REMEMBERED;
use crate::support::*;

/// Both suites that are accepted by default.
pub(crate) const SUITES: [Suite; 2] = [Suite::PREFERRED, Suite::CLASSIC];

pub(crate) struct Handshakes {
    responder: Responder,
    /// Initiators, one for each suite.
    alices: [Arc<Local>; 2],
    peer: PeerKey,
    /// Offers that are not Bob's.
    foreign_offers: Vec<Vec<u8>>,
    /// First messages that were not answered and could be.
    fresh: [Vec<Vec<u8>>; 2],
    /// Those that must not be answered again, or never, and replies to them.
    old: [Vec<(Vec<u8>, Vec<u8>)>; 2],
}

impl Handshakes {
    pub(crate) fn new() -> Self {
        let config = Config::default().with_replay_capacity(REMEMBERED);
        let responder = Responder::new(local(BOB, &BOB_KEY, config)).unwrap();
        let alices = SUITES.map(|suite| {
            let config = Config::default().with_suites(vec![suite]);
            local(ALICE, &ALICE_KEY, config)
        });
        let offer_of = |name, key| {
            let node = local(name, key, Config::default());
            Responder::new(node).unwrap().offer().to_vec()
        };
        let (alice, eve) = (offer_of(ALICE, &ALICE_KEY), offer_of(BOB, &EVE_KEY));
        let peer = PeerKey::from_offer(&alices[0], responder.offer(), &Pinned::bob()).unwrap();
        let (fresh, old) = Default::default();
        let mut made = Self {
            responder,
            alices,
            peer,
            foreign_offers: vec![alice, eve],
            fresh,
            old,
        };
        let restarted = Responder::new(bob()).unwrap();
        for suite in 0..SUITES.len() {
            made.fresh[suite] = (0..16).map(|_| made.start(suite).1).collect();
            for _ in 0..8 {
                let (_, init) = made.start(suite);
                let (reply, _) = respond(&made.responder, &init).unwrap();
                made.old[suite].push((init, reply));
                let alice = &made.alices[suite];
                let peer = PeerKey::from_offer(alice, restarted.offer(), &Pinned::bob()).unwrap();
                let (_, init) = Initiator::start(alice, &peer, b"alice's token", NOW).unwrap();
                let (reply, _) = respond(&restarted, &init).unwrap();
                made.old[suite].push((init, reply));
            }
        }
        made
    }

    fn start(&self, suite: usize) -> (Initiator, Vec<u8>) {
        Initiator::start(&self.alices[suite], &self.peer, b"alice's token", NOW).unwrap()
    }

    pub(crate) fn offer(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        let other = dice.of(&self.foreign_offers).clone();
        let (changed, how) = change(dice, (self.responder.offer(), &other), offer_layout);
        PeerKey::from_offer(&self.alices[0], &changed, &Pinned::bob()).unwrap_err();
        ("key offer", how)
    }

    pub(crate) fn first_message(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        let suite = dice.below(2);
        let good = dice.of(&self.fresh[suite]);
        let (other, _) = dice.of(&self.old[suite]);
        let (changed, how) = change(dice, (good, other), init_layout);
        respond(&self.responder, &changed).unwrap_err();
        ("first message", how)
    }

    pub(crate) fn reply(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        let suite = dice.below(2);
        let (initiator, init) = self.start(suite);
        let (reply, _) = respond(&self.responder, &init).unwrap();
        let (_, other) = dice.of(&self.old[suite]);
        let (changed, how) = change(dice, (&reply, other), reply_layout);
        initiator.finish(&changed, &Pinned::bob(), NOW).unwrap_err();
        ("reply", how)
    }

    /// Every message of one handshake is changed; then the good ones go through, since nothing that was refused leaves
    /// anything behind.
    pub(crate) fn several(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        self.offer(dice);
        let suite = dice.below(2);
        let (initiator, init) = self.start(suite);
        let (old_init, old_reply) = dice.of(&self.old[suite]);
        let (changed, _) = change(dice, (&init, old_init), init_layout);
        respond(&self.responder, &changed).unwrap_err();
        // Without an answer to the changed message there are still the answers to others.
        let (reply, bob) = respond(&self.responder, &init).unwrap();
        if dice.one_in(4) {
            let alice = initiator.finish(&reply, &Pinned::bob(), NOW).unwrap();
            assert_eq!(alice.id(), bob.id());
        } else {
            let (changed, _) = change(dice, (&reply, old_reply), reply_layout);
            initiator.finish(&changed, &Pinned::bob(), NOW).unwrap_err();
        }
        respond(&self.responder, &init).unwrap_err();
        ("handshake", "all its messages changed")
    }
}

fn respond(responder: &Responder, init: &[u8]) -> Result<(Vec<u8>, Session), Error> {
    let checked = responder.check(init, NOW)?;
    responder.respond(&checked, b"bob's token", &Pinned::alice(), NOW)
}

fn offer_layout(offer: &[u8]) -> Layout {
    let codes = usize::from(offer[2]) * 2;
    let is_hybrid = offer[3..3 + codes].chunks(2).any(|code| code[0] == 1);
    let ek = if is_hybrid { 1_184 } else { 0 };
    Fields::of(offer)
        .fixed(&[1, 1, 1, codes, 32, ek])
        .vec()
        .vec()
        .vec()
        .vec()
        .end()
}

fn init_layout(init: &[u8]) -> Layout {
    let kem = if init[2] == 1 { [1_088, 1_184] } else { [0, 0] };
    Fields::of(init)
        .fixed(&[1, 1, 2, 32, 8, 32, 32])
        .fixed(&kem)
        .vec()
        .vec()
        .end()
}

fn reply_layout(reply: &[u8]) -> Layout {
    let kem = if reply[2] == 1 { 1_088 } else { 0 };
    Fields::of(reply)
        .fixed(&[1, 1, 2, 32, 32, kem])
        .vec()
        .vec()
        .end()
}
