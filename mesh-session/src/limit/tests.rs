//! The limiter against an exact model, and its bounds.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::time::Duration;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn small() -> LimiterConfig {
    let n = |number| NonZeroU32::new(number).unwrap();
    LimiterConfig::default()
        .with_rate(n(4), n(2))
        .with_failure_cost(n(3))
        .with_under_way(n(2), n(3))
        .with_max_peers(n(2))
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How many handshakes a peer may still ask for at once.
fn left(limiter: &HandshakeLimiter<u8>, peer: u8, now: Instant) -> usize {
    let tries = 0..100;
    tries.filter(|_| limiter.admit(&peer, now).is_ok()).count()
}

// threat 32
#[test]
fn a_peer_gets_its_burst_and_then_its_rate() {
    let t = start();
    let limiter = HandshakeLimiter::new(small(), t);
    let admit = |after| limiter.admit(&1, t + after);
    for _ in 0..4 {
        admit(ms(0)).unwrap();
    }
    let retry_after = ms(500);
    assert_eq!(admit(ms(0)), Err(Limited::Rate { retry_after }));
    assert_eq!(
        admit(ms(499)),
        Err(Limited::Rate { retry_after: ms(1) }),
        "what is refused costs nothing"
    );
    admit(ms(500)).unwrap();
    admit(ms(500)).unwrap_err();
    limiter.admit(&2, t + ms(500)).unwrap();
    assert_eq!(limiter.stats().refused_rate, 3);
}

// threat 32
#[test]
fn a_failure_costs_more_than_a_success() {
    let t = start();
    let limiter = HandshakeLimiter::new(small(), t);
    for peer in [1, 2] {
        limiter.admit(&peer, t).unwrap();
    }
    drop(limiter.begin(&1).unwrap());
    limiter.begin(&2).unwrap().fail(t);
    assert_eq!((left(&limiter, 1, t), left(&limiter, 2, t)), (3, 1));
}

#[test]
fn what_is_given_back_leaves_a_small_price() {
    let t = start();
    let limiter = HandshakeLimiter::new(small(), t);
    let is_cheap = |_: &u32| {
        let admitted = limiter.admit(&1, t);
        limiter.give_back(&1);
        admitted.is_ok()
    };
    // Eighths of four tokens, as long as there is a whole one.
    assert_eq!((0..25).filter(is_cheap).count(), 25);
    limiter.admit(&1, t).unwrap_err();
    for _ in 0..99 {
        limiter.give_back(&2);
    }
    assert_eq!(
        left(&limiter, 2, t),
        4,
        "nothing can be given back that was not taken"
    );
}

#[test]
fn places_are_bounded_for_a_peer_and_for_all() {
    let t = start();
    let limiter = HandshakeLimiter::new(small(), t);
    for peer in [1, 2] {
        limiter.admit(&peer, t).unwrap();
    }
    let first = limiter.begin(&1).unwrap();
    let second = limiter.begin(&1).unwrap();
    assert_eq!(limiter.begin(&1).unwrap_err(), Limited::PeerBusy);
    let third = limiter.begin(&2).unwrap();
    assert_eq!(limiter.begin(&2).unwrap_err(), Limited::Busy);
    drop(first);
    let fourth = limiter.begin(&2).unwrap();
    drop((second, third, fourth));
    assert_eq!(limiter.stats().under_way, 0);
    assert_eq!(limiter.stats().refused_busy, 2);
}

// threat 32
#[test]
fn newcomers_to_a_full_table_share_a_bucket_and_take_none_of_the_others() {
    let t = start();
    let limiter = HandshakeLimiter::new(small(), t);
    for peer in [1, 2] {
        limiter.admit(&peer, t).unwrap();
    }
    let got = (100u8..200).filter(|peer| limiter.admit(peer, t).is_ok());
    assert_eq!(got.count(), 4);
    for _ in 0..2 {
        limiter.admit(&1, t).unwrap();
    }
    // Once peer 2 is as good as new, somebody else may have its place.
    let later = t + ms(1_000);
    limiter.admit(&100, later).unwrap();
    assert_eq!(limiter.stats().peers, 2);
    assert_eq!(left(&limiter, 100, later), 3, "a bucket of its own");
}

#[test]
fn times_out_of_reach_admit_nothing_and_break_nothing() {
    let t = start();
    let limiter = HandshakeLimiter::new(small(), t);
    let far = t + Duration::from_secs(1 << 40);
    limiter.admit(&1, far).unwrap_err();
    limiter.begin(&1).unwrap().fail(far);
    let n = |number| NonZeroU32::new(number).unwrap();
    let extreme = LimiterConfig::default()
        .with_rate(n(u32::MAX), n(1))
        .with_failure_cost(n(u32::MAX));
    let limiter = HandshakeLimiter::new(extreme, t);
    limiter.admit(&1, t).unwrap();
    limiter.begin(&1).unwrap().fail(t);
    limiter.admit(&1, t).unwrap_err();
}

/// The same rules over tokens, written down the long way.
struct Model {
    now: i128,
    peers: Vec<(u8, Bucket)>,
    crowd: Bucket,
    swept: Option<i128>,
    under_way: usize,
}

struct Holder(Option<u8>);

#[derive(Clone, Copy)]
struct Bucket {
    /// In nanoseconds of refill; `DEPTH` is full.
    level: i128,
    at: i128,
    under_way: usize,
}

const TOKEN: i128 = 500_000_000;
const DEPTH: i128 = 4 * TOKEN;

impl Bucket {
    const fn full() -> Self {
        Self {
            level: DEPTH,
            at: 0,
            under_way: 0,
        }
    }

    fn level(&self, now: i128) -> i128 {
        DEPTH.min(self.level + now - self.at)
    }

    fn change(&mut self, by: i128, now: i128) {
        self.level = DEPTH.min(self.level(now) + by);
        self.at = now;
    }
}

impl Model {
    fn own(&mut self, peer: u8) -> Option<&mut Bucket> {
        let found = self.peers.iter_mut().find(|(name, _)| *name == peer);
        found.map(|(_, bucket)| bucket)
    }

    fn bucket(&mut self, peer: u8) -> &mut Bucket {
        let now = self.now;
        let is_due = self.swept.is_none_or(|swept| now - swept >= 1_000_000_000);
        if self.own(peer).is_none() && self.peers.len() == 2 && is_due {
            self.swept = Some(now);
            self.peers
                .retain(|(_, bucket)| bucket.under_way > 0 || bucket.level(now) < DEPTH);
        }
        if self.own(peer).is_none() && self.peers.len() < 2 {
            self.peers.push((peer, Bucket::full()));
        }
        self.existing(peer)
    }

    fn existing(&mut self, peer: u8) -> &mut Bucket {
        match self.peers.iter().position(|(name, _)| *name == peer) {
            Some(at) => &mut self.peers[at].1,
            None => &mut self.crowd,
        }
    }

    fn admit(&mut self, peer: u8) -> bool {
        let now = self.now;
        let bucket = self.bucket(peer);
        let is_enough = bucket.level(now) >= TOKEN;
        if is_enough {
            bucket.change(-TOKEN, now);
        }
        is_enough
    }

    /// Who holds the place: a peer, or the crowd.
    fn begin(&mut self, peer: u8) -> Option<Holder> {
        let all = self.under_way;
        let bucket = self.existing(peer);
        if bucket.under_way >= 2 || all >= 3 {
            return None;
        }
        bucket.under_way += 1;
        self.under_way += 1;
        Some(Holder(self.own(peer).is_some().then_some(peer)))
    }

    fn end(&mut self, Holder(holder): Holder, surcharge: i128) {
        let now = self.now;
        let bucket = match holder {
            Some(peer) => self.own(peer).unwrap(),
            None => &mut self.crowd,
        };
        bucket.under_way -= 1;
        bucket.change(-surcharge, now);
        self.under_way -= 1;
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Admit(u8),
    GiveBack(u8),
    Begin(u8),
    End(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = 0u8..4;
    let step = prop_oneof![
        (0u64..2_000).prop_map(Step::Wait),
        peer.clone().prop_map(Step::Admit),
        peer.clone().prop_map(Step::GiveBack),
        peer.prop_map(Step::Begin),
        (0usize..3, any::<bool>()).prop_map(|(at, is_failed)| Step::End(at, is_failed)),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    // threat 32
    #[test]
    fn decides_as_the_model_does(steps in steps()) {
        let t = start();
        let limiter = HandshakeLimiter::new(small(), t);
        let mut model = Model {
            now: 0,
            peers: Vec::new(),
            crowd: Bucket::full(),
            swept: None,
            under_way: 0,
        };
        let mut places = Vec::new();
        let mut now = t;
        for step in steps {
            match step {
                Step::Wait(millis) => {
                    now += ms(millis);
                    model.now += i128::from(millis) * 1_000_000;
                }
                Step::GiveBack(peer) => {
                    limiter.give_back(&peer);
                    let at = model.now;
                    model.existing(peer).change(TOKEN * 7 / 8, at);
                }
                Step::Admit(peer) => {
                    let admitted = limiter.admit(&peer, now);
                    prop_assert_eq!(admitted.is_ok(), model.admit(peer));
                    if let Err(refused) = admitted {
                        // What it promises, it keeps, and not a nanosecond earlier.
                        let at = model.now;
                        let missing = TOKEN - model.existing(peer).level(at);
                        prop_assert_eq!(i128::try_from(refused.retry_after().as_nanos()).unwrap(), missing);
                    }
                }
                Step::Begin(peer) => match (limiter.begin(&peer), model.begin(peer)) {
                    (Ok(place), Some(holder)) => places.push((place, holder)),
                    (got, expected) => prop_assert!(got.is_err() && expected.is_none()),
                },
                Step::End(at, is_failed) if at < places.len() => {
                    let (place, holder) = places.swap_remove(at);
                    if is_failed {
                        place.fail(now);
                    } else {
                        drop(place);
                    }
                    model.end(holder, if is_failed { 2 * TOKEN } else { 0 });
                }
                Step::End(..) => {}
            }
            let stats = limiter.stats();
            prop_assert_eq!((stats.peers, stats.under_way), (model.peers.len(), u32::try_from(places.len()).unwrap()));
            prop_assert!(stats.peers <= 2 && stats.under_way <= 3);
        }
    }

    // threat 32
    #[test]
    fn no_stretch_of_time_sees_more_than_burst_and_rate(waits in prop::collection::vec(0u64..700, 1..300)) {
        let t = start();
        let limiter = HandshakeLimiter::new(small(), t);
        let mut at = 0;
        let mut admitted = Vec::new();
        for wait in waits {
            at += wait;
            if limiter.admit(&1, t + ms(at)).is_ok() {
                admitted.push(at);
            }
        }
        for (first, from) in admitted.iter().enumerate() {
            for (last, to) in admitted.iter().enumerate().skip(first) {
                let number = u64::try_from(last - first + 1).unwrap();
                prop_assert!(number <= 4 + (to - from) * 2 / 1_000);
            }
        }
    }
}
