//! The decision, case by case.

use super::*;

const ONE: Duration = Duration::from_secs(1);

fn failed(classified: Classified) -> Failed {
    Failed {
        attempts: 1,
        made_for: Attempt::FIRST,
        is_idempotent: true,
        has_copy: true,
        deadline: None,
        classified,
    }
}

fn check(failed: &Failed, unit: f64, expected: Result<Duration, Stop>) {
    let now = tokio::time::Instant::now().into_std();
    assert_eq!(
        decide(&RetryConfig::default(), failed, now, unit),
        expected,
        "{failed:?}"
    );
}

#[test]
fn what_may_not_be_repeated_is_not() {
    let failure = failed(Classified::failure());
    check(
        &failed(Classified::new(Outcome::Failure)),
        1.0,
        Err(Stop::NotRetryable),
    );
    check(
        &Failed {
            attempts: 3,
            ..failure
        },
        1.0,
        Err(Stop::Attempts),
    );
    check(
        &Failed {
            has_copy: false,
            ..failure
        },
        1.0,
        Err(Stop::NotReplayable),
    );
    // Threat 43.
    check(
        &Failed {
            is_idempotent: false,
            ..failure
        },
        1.0,
        Err(Stop::Unsafe),
    );
    let unprocessed = Classified::failure().with_retryable(Retryable::Always);
    check(
        &Failed {
            is_idempotent: false,
            ..failed(unprocessed)
        },
        1.0,
        Ok(ONE),
    );
}

#[test]
fn a_call_made_for_a_retry_is_not_repeated_again() {
    let unprocessed = Classified::failure().with_retryable(Retryable::Always);
    let deeper = Failed {
        made_for: Attempt::FIRST.next(),
        ..failed(unprocessed)
    };
    check(&deeper, 1.0, Err(Stop::Repeated));
}

#[test]
fn waits_grow_and_are_spread_between_nothing_and_the_bound() {
    let failure = failed(Classified::failure());
    for (unit, wait) in [(0.0, Duration::ZERO), (0.5, ONE / 2), (1.0, ONE)] {
        check(&failure, unit, Ok(wait));
    }
    check(
        &Failed {
            attempts: 2,
            ..failure
        },
        1.0,
        Ok(2 * ONE),
    );
    let patient = RetryConfig::default().with_max_attempts(std::num::NonZeroU32::MAX);
    for (attempts, seconds) in [(3, 4), (5, 16), (6, 25), (1_000, 25), (u32::MAX - 1, 25)] {
        assert_eq!(backoff(&patient, attempts), seconds * ONE);
    }
}

#[test]
fn a_service_that_names_a_wait_gets_it_if_it_is_not_too_long() {
    let asked = |seconds| failed(Classified::failure().with_retry_after(seconds * ONE));
    check(&asked(7), 0.0, Ok(7 * ONE));
    check(&asked(7), 1.0, Ok(8 * ONE));
    check(&asked(0), 1.0, Ok(ONE));
    check(&asked(26), 1.0, Err(Stop::Delay));
}

#[test]
fn no_wait_ends_after_the_deadline() {
    let now = tokio::time::Instant::now().into_std();
    let due = |millis| Failed {
        deadline: Some(Deadline::at(now + Duration::from_millis(millis))),
        ..failed(Classified::failure())
    };
    let config = RetryConfig::default();
    assert_eq!(decide(&config, &due(1_001), now, 1.0), Ok(ONE));
    assert_eq!(decide(&config, &due(1_000), now, 1.0), Err(Stop::Deadline));
    assert_eq!(decide(&config, &due(0), now, 0.0), Err(Stop::Deadline));
}
