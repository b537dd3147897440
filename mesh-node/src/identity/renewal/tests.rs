//! Times of renewal.

use mesh_resilience::random::SplitMix64;

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn renews_about_two_thirds_into_the_life_and_not_always_at_the_same_moment() {
    let random = SplitMix64::new(7);
    let validity = Validity {
        not_before: at(1000),
        not_after: at(1000 + 3600),
    };
    let waits: Vec<_> = (0..1000)
        .map(|_| renew_after(validity, at(1060), &random).as_secs_f64())
        .collect();
    let (least, most) = waits
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), wait| {
            (least.min(*wait), most.max(*wait))
        });
    assert!((2099.0..2130.0).contains(&least), "{least}");
    assert!((2550.0..2581.0).contains(&most), "{most}");
}

#[test]
fn a_certificate_that_is_over_is_renewed_a_second_later() {
    let validity = Validity {
        not_before: at(1000),
        not_after: at(2000),
    };
    let wait = renew_after(validity, at(5000), &|| 0);
    assert_eq!(wait, Duration::from_secs(1));
}

#[test]
fn waits_grow_to_a_minute_and_start_anew_after_a_success() {
    let mut backoff = Backoff::new(Arc::new(|| 1000));
    let waits: Vec<_> = (0..8).map(|_| backoff.next().as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    backoff.reset();
    assert_eq!(backoff.next().as_secs(), 1);
}
