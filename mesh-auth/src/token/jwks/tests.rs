//! The times of fetches, and for how long keys count.

use proptest::prelude::*;

use super::super::forge::{Signer, jwks as set_of};
use super::*;

const REFRESH: Duration = Duration::from_mins(5);
const INTERVAL: Duration = Duration::from_secs(10);
const STALE: Duration = Duration::from_hours(1);

fn config() -> JwksConfig {
    JwksConfig::default()
        .with_refresh(REFRESH)
        .with_min_interval(INTERVAL)
        .with_max_stale(STALE)
}

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
fn start() -> Instant {
    Instant::now()
}

/// Keys whose first set was fetched at `start`.
fn filled(body: &[u8]) -> (Jwks, Instant) {
    let at = start();
    let mut jwks = Jwks::new(config(), at, 7);
    assert_eq!(jwks.next(at), Next::Fetch);
    jwks.fetched(at, body).unwrap();
    (jwks, at)
}

#[test]
fn fetches_at_once_and_then_before_each_refresh_is_over() {
    let key = set_of(&[&Signer::es256("a")]);
    let (mut jwks, at) = filled(&key);
    let Next::Wait(next) = jwks.next(at) else {
        panic!("it must wait");
    };
    assert!(
        next <= at + REFRESH && next > at + REFRESH * 9 / 10,
        "{:?}",
        next - at
    );
    assert_eq!(jwks.next(next), Next::Fetch);
    assert_eq!(jwks.next(next), Next::Fetching, "one at a time");
}

// threat 21
#[test]
fn a_storm_of_unknown_keys_costs_one_fetch_an_interval() {
    let key = set_of(&[&Signer::es256("a")]);
    let (mut jwks, at) = filled(&key);
    let mut fetches = 0;
    for millis in 0..100_000_u32 {
        let now = at + Duration::from_millis(millis.into());
        jwks.unknown_key(now);
        if jwks.next(now) == Next::Fetch {
            fetches += 1;
            jwks.fetched(now, &key).unwrap();
        }
    }
    assert_eq!(fetches, 9, "100 s, the first of them without");
}

#[test]
fn an_unknown_key_is_worth_waiting_for_only_where_a_fetch_is_due_or_under_way() {
    let key = set_of(&[&Signer::es256("a")]);
    let (mut jwks, at) = filled(&key);
    assert!(!jwks.unknown_key(at + INTERVAL / 2));
    assert!(jwks.unknown_key(at + INTERVAL));
    assert_eq!(jwks.next(at + INTERVAL), Next::Fetch);
    assert!(jwks.unknown_key(at + INTERVAL));
    jwks.failed(at + INTERVAL);
    assert!(!jwks.unknown_key(at + INTERVAL * 2), "the back-off holds");
}

// threat 23
#[test]
fn what_is_refused_leaves_the_last_good_set_until_that_is_too_old() {
    let good = set_of(&[&Signer::es256("a")]);
    let (mut jwks, at) = filled(&good);
    let twice = set_of(&[&Signer::es256("a"), &Signer::es256("a")]);
    let bodies: [&[u8]; 4] = [b"{\"keys\":[]}", b"<html>", b"", &twice];
    let mut now = at;
    for body in bodies {
        now += REFRESH;
        assert_eq!(jwks.next(now), Next::Fetch);
        let error = jwks.fetched(now, body).unwrap_err();
        assert!(matches!(error, JwksError::Set(_)), "{error}");
        let keys = jwks.keys(now).unwrap();
        assert!(keys.key("a").is_some());
    }
    assert_eq!(jwks.failures(), 4);
    assert!(jwks.keys(at + REFRESH * 11).is_some());
    assert!(jwks.keys(at + STALE).is_none(), "fail closed");
    assert_eq!(jwks.stale_at(), Some(at + STALE));
    jwks.fetched(at + STALE, &good).unwrap();
    assert!(jwks.keys(at + STALE).is_some());
}

// threat 23
#[test]
fn a_set_with_a_key_that_was_dropped_long_ago_is_refused() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let (mut jwks, at) = filled(&set_of(&[&old]));
    jwks.fetched(at + REFRESH, &set_of(&[&old, &new])).unwrap();
    let dropped = at + REFRESH * 2;
    jwks.fetched(dropped, &set_of(&[&new])).unwrap();
    // Servers that disagree while they rotate are forgiven.
    jwks.fetched(dropped + REFRESH, &set_of(&[&old, &new]))
        .unwrap();
    let dropped = dropped + REFRESH * 2;
    jwks.fetched(dropped, &set_of(&[&new])).unwrap();
    let late = dropped + REFRESH * 2 + Duration::from_secs(1);
    for body in [set_of(&[&old]), set_of(&[&old, &new])] {
        let error = jwks.fetched(late, &body).unwrap_err();
        assert!(matches!(error, JwksError::Rollback), "{error}");
        assert!(jwks.keys(late).unwrap().key("old").is_none());
    }
    // Neither does another name help.
    let renamed = Signer {
        kid: "renamed".to_owned(),
        ..old
    };
    jwks.fetched(late, &set_of(&[&renamed])).unwrap_err();
    jwks.fetched(late, &set_of(&[&new])).unwrap();
}

#[test]
fn the_same_keys_again_stay_the_same_value() {
    let body = set_of(&[&Signer::es256("a")]);
    let (mut jwks, at) = filled(&body);
    let first = Arc::clone(jwks.keys(at).unwrap());
    let second = jwks.fetched(at + REFRESH, &body).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(jwks.age(at + REFRESH), Some(Duration::ZERO));
}

#[test]
fn failures_are_followed_by_longer_and_longer_waits() {
    let at = start();
    let mut jwks = Jwks::new(config(), at, 3);
    let mut now = at;
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        assert_eq!(jwks.next(now), Next::Fetch);
        jwks.failed(now);
        let Next::Wait(next) = jwks.next(now) else {
            panic!("it must wait");
        };
        let wait = next - now;
        assert!(wait >= INTERVAL && wait <= REFRESH * 3 / 2, "{wait:?}");
        assert!(wait * 2 > last, "{wait:?} after {last:?}");
        last = wait;
        now = next;
    }
    assert!(last >= REFRESH);
    assert!(jwks.keys(now).is_none(), "no keys were ever fetched");
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Unknown,
    Good(usize),
    Bad,
    Failed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..400_u64).prop_map(Step::Pass),
        Just(Step::Unknown),
        (0..3_usize).prop_map(Step::Good),
        Just(Step::Bad),
        Just(Step::Failed),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes in whatever order: two fetches never begin within the interval, no more than one is under way, and
    /// keys count exactly until the last good set is too old.
    // threat 21
    #[test]
    fn no_order_of_events_breaks_the_intervals_or_revives_old_keys(seed: u64, steps in steps()) {
        let signers = ["a", "b", "c"].map(Signer::es256);
        let bodies = [
            set_of(&[&signers[0]]),
            set_of(&[&signers[0], &signers[1]]),
            set_of(&[&signers[1], &signers[2]]),
        ];
        let at = start();
        let (mut now, mut jwks) = (at, Jwks::new(config(), at, seed));
        let (mut begun, mut last_good, mut is_fetching): (Option<Instant>, Option<Instant>, bool) = (None, None, false);
        for step in steps {
            match step {
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
                Step::Unknown => { jwks.unknown_key(now); }
                Step::Good(which) if is_fetching => {
                    if jwks.fetched(now, &bodies[which]).is_ok() {
                        last_good = Some(now);
                    }
                    is_fetching = false;
                }
                Step::Bad if is_fetching => {
                    jwks.fetched(now, b"[]").unwrap_err();
                    is_fetching = false;
                }
                Step::Failed if is_fetching => {
                    jwks.failed(now);
                    is_fetching = false;
                }
                _ => {}
            }
            match jwks.next(now) {
                Next::Fetch => {
                    prop_assert!(!is_fetching);
                    prop_assert!(begun.is_none_or(|begun| now >= begun + INTERVAL));
                    begun = Some(now);
                    is_fetching = true;
                }
                Next::Fetching => prop_assert!(is_fetching),
                Next::Wait(until) => {
                    prop_assert!(!is_fetching && until > now);
                    prop_assert!(until <= now + REFRESH * 3 / 2);
                }
            }
            let counts = last_good.is_some_and(|good| now < good + STALE);
            prop_assert_eq!(jwks.keys(now).is_some(), counts);
        }
    }
}
