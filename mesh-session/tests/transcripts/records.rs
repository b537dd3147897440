//! Records, one by one and as streams.

use std::sync::Arc;

use bytes::BytesMut;
use mesh_crypto::AeadAlgorithm;
use mesh_session::Agreement;
use mesh_session::Config;
use mesh_session::Flags;
use mesh_session::MacCover;
use mesh_session::Opener;
use mesh_session::Session;
use mesh_session::Suite;

use crate::change::Fields;
use crate::change::Layout;
use crate::change::change;
use crate::dice::Dice;
use crate::support::*;

/// Suites of every kind of protection; the agreement makes no difference to records.
const PROTECTIONS: [(AeadAlgorithm, MacCover); 3] = [
    (AeadAlgorithm::Aes256Gcm, MacCover::Record),
    (AeadAlgorithm::Aes128Gcm, MacCover::Record),
    (AeadAlgorithm::Aes256Gcm, MacCover::HeaderAndTag),
];

pub(crate) struct Records(Vec<Pair>);

struct Pair {
    suite: Suite,
    alice: Arc<Session>,
    bob: Arc<Session>,
    /// Records that were opened already, of this session in both directions and of another one.
    old: Vec<BytesMut>,
}

impl Records {
    pub(crate) fn new() -> Self {
        let suites = PROTECTIONS.map(|(cipher, mac)| Suite::new(Agreement::X25519, cipher, mac));
        Self(suites.map(Pair::new).into())
    }

    /// A changed record does not open, as the first of an exchange and as a later one either way; the good one does
    /// afterwards where the stream may go on.
    pub(crate) fn record(&mut self, dice: &mut Dice) -> (&'static str, &'static str) {
        let pair = self.pair(dice);
        let old = dice.of(&pair.old).clone();
        let (mut asking, mut answered) = pair.alice.begin(ROUTE, now()).unwrap();
        let good = seal(&mut asking, Flags::HEAD, b"the first");
        let (changed, how) = change(dice, (&good, &old), layout);
        let refused = pair.bob.accept(ROUTE, &mut of(&changed), now());
        refused.unwrap_err();
        let other_route = pair.bob.accept(b"elsewhere", &mut good.clone(), now());
        other_route.unwrap_err();
        if pair.takes_for_authentic(&changed, &good) {
            // The number of the exchange is used up; whoever could change the record could have dropped it as well.
            pair.bob
                .accept(ROUTE, &mut good.clone(), now())
                .unwrap_err();
            return (
                "record",
                "only its text changed, under a mac of header and tag",
            );
        }
        let (mut answering, mut asked, _) =
            pair.bob.accept(ROUTE, &mut good.clone(), now()).unwrap();
        pair.bob
            .accept(ROUTE, &mut good.clone(), now())
            .unwrap_err();
        let mut answer = seal(&mut answering, Flags::HEAD, b"an answer");
        answered.open(&mut answer).unwrap();
        let (sealer, opener): (_, &mut Opener) = if dice.one_in(2) {
            (&mut asking, &mut asked)
        } else {
            (&mut answering, &mut answered)
        };
        let good = seal(sealer, Flags::END, b"a later one");
        let (changed, _) = change(dice, (&good, &old), layout);
        opener.open(&mut of(&changed)).unwrap_err();
        // A stream that was meddled with is over.
        opener.open(&mut good.clone()).unwrap_err();
        opener.finish().unwrap_err();
        ("record", how)
    }

    /// A stream whose records are dropped, repeated, moved, changed or mixed with others: it opens as far as it is what
    /// was sealed, and is complete only if all of it is.
    pub(crate) fn stream(&mut self, dice: &mut Dice) -> (&'static str, &'static str) {
        let pair = self.pair(dice);
        let (mut asking, _) = pair.alice.begin(ROUTE, now()).unwrap();
        let len = 2 + dice.below(4);
        let sealed: Vec<_> = (0..len)
            .map(|at| {
                if dice.one_in(8) {
                    pair.alice.advance().unwrap();
                }
                let flags = if at + 1 == len {
                    Flags::END
                } else {
                    Flags::NONE
                };
                seal(&mut asking, flags, &[u8::try_from(at).unwrap(); 20])
            })
            .collect();
        let (delivered, how) = rearrange(dice, &sealed, &pair.old);
        let mut stream: Option<Opener> = None;
        let (mut next, mut is_broken) = (0, false);
        for record in &delivered {
            let is_good = !is_broken && sealed.get(next) == Some(record);
            let mut bytes = record.clone();
            let opened = match &mut stream {
                Some(opener) => opener.open(&mut bytes).is_ok(),
                None => match pair.bob.accept(ROUTE, &mut bytes, now()) {
                    Ok((_, opener, _)) => {
                        stream = Some(opener);
                        true
                    }
                    Err(_) => false,
                },
            };
            assert_eq!(opened, is_good, "record {next} of {len}, {how}");
            if opened {
                assert_eq!(bytes, [u8::try_from(next).unwrap(); 20].as_slice());
                next += 1;
            } else {
                // What comes before the stream has begun does not end it.
                is_broken |= stream.is_some() || pair.takes_for_authentic(record, &sealed[0]);
            }
        }
        let is_complete = stream.is_some_and(|opener| opener.finish().is_ok());
        assert_eq!(is_complete, next == len && !is_broken, "{how}");
        ("stream", how)
    }

    /// A pair that still has epochs to go to.
    fn pair(&mut self, dice: &mut Dice) -> &Pair {
        let at = dice.below(self.0.len());
        let pair = &mut self.0[at];
        if pair.alice.epoch() > 200 {
            *pair = Pair::new(pair.suite);
        }
        pair
    }
}

impl Pair {
    fn new(suite: Suite) -> Self {
        let (mut made, other) = (Self::without_old(suite), Self::without_old(suite));
        made.old = [made.used(), other.used()].concat();
        made
    }

    fn without_old(suite: Suite) -> Self {
        let config = Config::default().with_suites(vec![suite]);
        let alice = local(ALICE, &ALICE_KEY, config.clone());
        let made = handshake_of(&alice, local(BOB, &BOB_KEY, config));
        Self {
            suite,
            alice: made.alice,
            bob: made.bob,
            old: Vec::new(),
        }
    }

    /// Whether the MAC of `changed` verifies because it covers header and tag alone, so that GCM refuses it.
    fn takes_for_authentic(&self, changed: &[u8], good: &[u8]) -> bool {
        let covered = |record: &[u8]| {
            let (header, rest) = record.split_at_checked(32)?;
            let (_, trailer) = rest.split_at_checked(rest.len().checked_sub(48)?)?;
            Some([header, trailer].concat())
        };
        self.suite.mac() == MacCover::HeaderAndTag && covered(changed) == covered(good)
    }

    /// An exchange of two records each way.
    fn used(&self) -> Vec<BytesMut> {
        let (mut asking, mut answered) = self.alice.begin(ROUTE, now()).unwrap();
        let mut all = vec![seal(&mut asking, Flags::NONE, b"one")];
        let accepted = self.bob.accept(ROUTE, &mut all[0].clone(), now());
        let (mut answering, mut asked, _) = accepted.unwrap();
        all.push(seal(&mut asking, Flags::END, b"another, and longer"));
        asked.open(&mut all[1].clone()).unwrap();
        for flags in [Flags::HEAD, Flags::END] {
            all.push(seal(&mut answering, flags, b"an answer"));
            answered.open(&mut all[all.len() - 1].clone()).unwrap();
        }
        all
    }
}

/// One to three changes, of which something is left in the end.
fn rearrange(
    dice: &mut Dice,
    sealed: &[BytesMut],
    old: &[BytesMut],
) -> (Vec<BytesMut>, &'static str) {
    loop {
        let mut all = sealed.to_vec();
        let several = dice.below(3);
        let mut how = "";
        for _ in 0..=several {
            how = rearrange_once(dice, &mut all, old);
        }
        if all != sealed {
            return (
                all,
                if several == 0 {
                    how
                } else {
                    "several of these"
                },
            );
        }
    }
}

fn rearrange_once(dice: &mut Dice, all: &mut Vec<BytesMut>, old: &[BytesMut]) -> &'static str {
    let (at, to) = (dice.below(all.len()), dice.below(all.len()));
    match dice.below(6) {
        0 if all.len() > 1 => {
            all.remove(at);
            "one dropped"
        }
        1 => {
            all.insert(to, all[at].clone());
            "one repeated"
        }
        3 => {
            all.insert(at, dice.of(old).clone());
            "one of another stream put in"
        }
        4 => {
            all.truncate(at.max(1));
            "the end cut off"
        }
        // What is left of one that was cut short may have no fields to change.
        2 if all[at].len() >= 32 => {
            let other = dice.of(old).clone();
            all[at] = of(&change(dice, (&all[at], &other), layout).0);
            "one changed"
        }
        _ => {
            all.swap(at, to);
            "two exchanged"
        }
    }
}

fn of(bytes: &[u8]) -> BytesMut {
    BytesMut::from(bytes)
}

fn layout(record: &[u8]) -> Layout {
    let fields = Fields::of(record).fixed(&[1, 1, 1, 1, 16, 8, 4]);
    match record.len().checked_sub(32 + 16 + 32) {
        Some(text) => fields.fixed(&[text, 16, 32]).end(),
        None => fields.fixed(&[record.len() - 32]).end(),
    }
}

const ROUTE: &[u8] = b"order-service";
