//! Random registrations and deregistrations, and whether who follows them comes to the same set as the registry.

use std::sync::Arc;
use std::time::Duration;

use crate::follower::Follower;
use crate::follower::Set;
use crate::follower::Truth;
use crate::support::process::holds_within;
use crate::support::process::lasts;

/// A registry as the test writes to it, past the code under test.
pub(crate) trait Target {
    /// Writes the endpoint at `port`, whose version is `number`; false where it is not certain that it was written.
    fn put(&self, port: u16, number: u64) -> bool;

    /// Takes it away; false where that is not certain.
    fn remove(&self, port: u16) -> bool;

    /// All that it holds, where it answers.
    fn all(&self) -> Option<Set>;
}

/// Registrations of one service, as a fleet makes them.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) truth: Arc<Truth>,
    present: Set,
    numbers: u64,
    random: Random,
    pub(crate) events: usize,
}

impl Fleet {
    /// Registers the part of it that stays.
    pub(crate) fn register(seed: u64, target: &dyn Target) -> Self {
        let mut fleet = Self {
            truth: Arc::default(),
            present: Set::new(),
            numbers: 0,
            random: Random(seed | 1),
            events: 0,
        };
        for index in 1..=CALM + RESTLESS {
            fleet.put(target, index);
        }
        fleet
    }

    /// One registration or deregistration of a random endpoint.
    pub(crate) fn step(&mut self, target: &dyn Target) {
        let port = CALM + 1 + self.random.below(RESTLESS);
        if self.present.contains_key(&port) && self.random.below(2) == 0 {
            self.remove(target, port);
        } else {
            self.put(target, port);
        }
        self.events += 1;
    }

    /// Registers all that is there again within `time`, as each would at the next sign of life, finding itself forgotten.
    pub(crate) fn register_again(&self, target: &dyn Target, time: Duration) {
        let pause = time / u32::try_from(self.present.len()).unwrap();
        for (&port, &number) in &self.present {
            insist(|| target.put(port, number));
            lasts(pause);
        }
    }

    fn put(&mut self, target: &dyn Target, port: u16) {
        self.numbers += 1;
        let number = self.numbers;
        let before = self.present.insert(port, number);
        self.truth.replace(port, before);
        insist(|| target.put(port, number));
    }

    fn remove(&mut self, target: &dyn Target, port: u16) {
        if let Some(number) = self.present.remove(&port) {
            self.truth.remove(port, number);
            insist(|| target.remove(port));
        }
    }

    /// Waits until the follower, the registry and the fleet agree.
    #[track_caller]
    pub(crate) fn wait_agreed(&self, follower: &Follower, target: &dyn Target) {
        let agree = holds_within(Duration::from_secs(30), || follower.set() == self.present);
        assert!(
            agree,
            "does not come to the registry's set: {}\n{}",
            difference(&follower.set(), &self.present),
            follower.says()
        );
        let mut held = None;
        let is_there = holds_within(Duration::from_secs(5), || {
            held = target.all();
            held.as_ref() == Some(&self.present)
        });
        assert!(is_there, "the registry holds something else: {held:?}");
    }
}

/// A write whose outcome is not known is made again, as by anybody who must be in the registry.
#[track_caller]
fn insist(write: impl FnMut() -> bool) {
    assert!(
        holds_within(Duration::from_mins(1), write),
        "the registry takes no writes"
    );
}

fn difference(found: &Set, expected: &Set) -> String {
    let missing: Vec<_> = expected
        .iter()
        .filter(|(port, _)| !found.contains_key(port))
        .collect();
    let extra: Vec<_> = found
        .iter()
        .filter(|(port, _)| !expected.contains_key(port))
        .collect();
    let other = expected
        .iter()
        .filter(|(port, number)| found.get(port).is_some_and(|found| found != *number));
    format!(
        "missing {missing:?}, too many {extra:?}, others {:?}",
        other.collect::<Vec<_>>()
    )
}

/// Xorshift, as in Marsaglia, "Xorshift RNGs" (2003): the same events for the same seed.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u16) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u16::try_from(self.0 % u64::from(limit)).unwrap()
    }
}

/// Endpoints that stay all the time.
const CALM: u16 = 60;
/// Endpoints that come and go; fewer than half, so that no withdrawal is hard to believe.
const RESTLESS: u16 = 40;
