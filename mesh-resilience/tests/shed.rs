//! The adaptive limit as its callers see it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod traces;

use std::future::pending;
use std::num::NonZeroU32;
use std::time::Duration;

use mesh_resilience::classify::{Classified, ErrorClassifier, Outcome, Retryable};
use mesh_resilience::refusal::Overloaded;
use mesh_resilience::shed::{Priority, Shed, ShedConfig, ShedLayer};
use mesh_resilience::{BoxError, find_cause, is_refusal};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

fn limits(min: u32, initial: u32, max: u32) -> ShedConfig {
    ShedConfig::default()
        .with_min_limit(NonZeroU32::new(min).unwrap())
        .with_initial_limit(NonZeroU32::new(initial).unwrap())
        .with_max_limit(NonZeroU32::new(max).unwrap())
}

#[test]
fn places_are_counted_exactly_and_the_limit_stays_in_its_bounds() {
    traces::each(2_000, |trace| {
        let (min, max) = (1 + trace.below(6), 10 + trace.below(40));
        let initial = min + trace.below(max - min + 1);
        let config = limits(min, initial, max).with_interval(MS * (1 + trace.below(50)));
        let shed = Shed::new(config).unwrap();
        let mut now = Instant::now().into_std();
        // The calls under way; how many there are is all that admission may look at.
        let mut running = Vec::new();
        let mut refused = 0;
        let mut was_reached = false;
        for _ in 0..300 {
            now += Duration::from_micros(u64::from(trace.below(3_000)));
            let before = shed.snapshot();
            assert_eq!(
                before.in_flight as usize,
                running.len(),
                "trace {}",
                trace.seed
            );
            assert!((min..=max).contains(&before.limit), "trace {}", trace.seed);
            if !was_reached {
                assert_eq!(
                    before.limit, initial,
                    "moved without need in trace {}",
                    trace.seed
                );
            }
            if trace.once(3, 5) {
                let is_critical = trace.once(1, 4);
                let (priority, places) = if is_critical {
                    (Priority::Critical, before.limit + (before.limit / 4).max(1))
                } else {
                    (Priority::Normal, before.limit)
                };
                was_reached |= before.in_flight >= before.limit;
                let place = shed.try_acquire(priority, now);
                assert_eq!(
                    place.is_ok(),
                    before.in_flight < places,
                    "trace {}",
                    trace.seed
                );
                match place {
                    Ok(permit) => running.push(permit),
                    Err(_) => refused += 1,
                }
            } else if !running.is_empty() {
                let permit = running.swap_remove(trace.place(running.len()));
                match trace.below(4) {
                    0 => drop(permit),
                    1 => permit.gave_up(now),
                    _ => permit.answered(now),
                }
            }
            assert_eq!(shed.snapshot().shed, refused, "trace {}", trace.seed);
        }
        drop(running);
        assert_eq!(shed.snapshot().in_flight, 0, "trace {}", trace.seed);
    });
}

#[tokio::test(start_paused = true)]
async fn a_call_over_the_limit_is_refused_at_once_and_never_reaches_the_service() {
    let shed = Shed::new(limits(1, 2, 2)).unwrap();
    let hangs = service_fn(|()| pending::<Result<(), BoxError>>());
    let mut service = ShedLayer::new(shed.clone(), ErrorClassifier::new()).layer(hangs);
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(service.call(()))).collect();
    let refused = calls.pop().unwrap().await.unwrap_err();
    let expected = Overloaded::new(Duration::from_secs(1));
    assert_eq!(find_cause::<Overloaded>(&refused), Some(&expected));
    assert!(is_refusal(&refused));
    let judged = Classified::of_error(&refused);
    assert_eq!(
        (judged.outcome, judged.retryable),
        (Outcome::Unknown, Retryable::Always)
    );
    assert_eq!(judged.retry_after, Some(expected.retry_after));
    assert_eq!(shed.snapshot().in_flight, 2);
    timeout(MS, calls.pop().unwrap()).await.unwrap_err();
    assert_eq!(
        shed.snapshot().in_flight,
        1,
        "a dropped call frees its place"
    );
    drop(calls);
    assert_eq!((shed.snapshot().in_flight, shed.snapshot().shed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_matters_more_passes_where_the_rest_is_refused() {
    let shed = Shed::new(limits(4, 4, 4)).unwrap();
    let hangs = service_fn(|_: bool| pending::<Result<(), BoxError>>());
    let priority = |is_critical: &bool| {
        if *is_critical {
            Priority::Critical
        } else {
            Priority::Normal
        }
    };
    let layer = ShedLayer::by_priority(shed, ErrorClassifier::new(), priority);
    let mut service = layer.layer(hangs);
    let running: Vec<_> = (0..4).map(|_| service.call(false)).collect();
    service.call(false).await.unwrap_err();
    let critical = service.call(true);
    service.call(true).await.unwrap_err();
    drop((running, critical));
}

#[tokio::test(start_paused = true)]
async fn calls_that_nobody_waits_for_any_more_lower_the_limit_too() {
    let config = limits(4, 50, 100);
    let shed = Shed::new(config).unwrap();
    let served = service_fn(|takes: Duration| async move {
        tokio::time::sleep(takes).await;
        Ok::<_, BoxError>(())
    });
    let mut service = ShedLayer::new(shed.clone(), ErrorClassifier::new()).layer(served);
    for _ in 0..200 {
        service.clone().oneshot(10 * MS).await.unwrap();
    }
    assert_eq!(shed.snapshot().limit, 50);
    // The service hangs, and the callers give up after a second: there is not one answer.
    for _ in 0..10 {
        let calls: Vec<_> = (0..60)
            .map(|_| Box::pin(timeout(1000 * MS, service.call(Duration::MAX))))
            .collect();
        for call in calls {
            drop(call.await);
        }
    }
    assert_eq!(shed.snapshot().limit, 4);
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    for wrong in [
        limits(5, 4, 10),
        limits(5, 11, 10),
        ShedConfig::default().with_tolerance(1.0),
        ShedConfig::default().with_interval(Duration::ZERO),
        ShedConfig::default().with_probe_interval(Duration::ZERO),
    ] {
        Shed::new(wrong).unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_whose_calls_all_came_to_nothing_is_followed_by_another() {
    let shed = Shed::new(limits(4, 100, 200)).unwrap();
    let now = || Instant::now().into_std();
    // Nothing is known yet of how long a call takes, so those that are given up tell nothing.
    let hanging: Vec<_> = (0..60)
        .map(|_| shed.try_acquire(Priority::Normal, now()).unwrap())
        .collect();
    tokio::time::advance(5_000 * MS).await;
    for permit in hanging {
        permit.gave_up(now());
    }
    assert_eq!(shed.snapshot().baseline, None);
    for _ in 0..200 {
        let permit = shed.try_acquire(Priority::Normal, now()).unwrap();
        tokio::time::advance(10 * MS).await;
        permit.answered(now());
    }
    assert!(shed.snapshot().baseline.is_some());
}
