//! The retry loop around a service, on a paused clock.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_resilience::BoxError;
use mesh_resilience::breaker::BreakerOpen;
use mesh_resilience::bulkhead::BulkheadFull;
use mesh_resilience::classify::ErrorClassifier;
use mesh_resilience::retry::{
    Attempt, Budget, BudgetConfig, Observe, Replay, Retry, RetryConfig, RetryLayer, Stop,
};
use mesh_resilience::timeout::{Deadline, HasDeadline, SetDeadline, TimedOut, TimeoutLayer};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

#[derive(Clone, Copy, Debug)]
struct Ask {
    is_idempotent: bool,
    has_copy: bool,
    deadline: Option<Deadline>,
    attempt: u32,
}

const SAFE: Ask = Ask {
    is_idempotent: true,
    has_copy: true,
    deadline: None,
    attempt: 1,
};

impl Replay for Ask {
    fn try_replay(&self) -> Option<Self> {
        self.has_copy.then_some(*self)
    }

    fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    fn begin_attempt(&mut self, attempt: Attempt) {
        self.attempt = attempt.number().get();
    }
}

impl HasDeadline for Ask {
    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }
}

impl SetDeadline for Ask {
    fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = Some(deadline);
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<Stop>>);

impl Observe for Seen {
    fn gave_up(&self, _: u32, reason: Stop) {
        self.0.lock().unwrap().push(reason);
    }
}

/// A layer whose waits are as long as they can be, and what it reports.
fn layer(budget: BudgetConfig) -> (RetryLayer<ErrorClassifier>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let observer: Arc<dyn Observe> = Arc::<Seen>::clone(&seen);
    let config = RetryConfig::default();
    let layer =
        RetryLayer::new(config, Budget::new(budget).unwrap(), ErrorClassifier::new()).unwrap();
    (
        layer
            .with_random(Arc::new(|| u64::MAX))
            .with_observer(observer),
        seen,
    )
}

/// Fails with what `error` makes until attempt number `works`, which answers its number; counts the calls.
async fn attempts(
    ask: Ask,
    works: u32,
    error: fn() -> BoxError,
) -> (Result<u32, BoxError>, u32, Vec<Stop>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let inner = service_fn(move |ask: Ask| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if ask.attempt >= works {
                Ok(ask.attempt)
            } else {
                Err(error())
            }
        }
    });
    let (layer, seen) = layer(BudgetConfig::default());
    let result = layer.layer(inner).oneshot(ask).await;
    let stops = seen.0.lock().unwrap().clone();
    (result, calls.load(Ordering::Relaxed), stops)
}

fn late() -> BoxError {
    TimedOut::new(Duration::ZERO).into()
}

fn full() -> BoxError {
    BulkheadFull::new().into()
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_call_is_tried_three_times_with_growing_waits() {
    let begin = tokio::time::Instant::now();
    let (result, calls, _) = attempts(SAFE, 3, late).await;
    assert_eq!((result.unwrap(), calls), (3, 3));
    assert_eq!(
        begin.elapsed().as_millis().div_ceil(1_000),
        3,
        "one second, then two"
    );
    let (result, calls, stops) = attempts(SAFE, 4, late).await;
    assert!(result.unwrap_err().is::<TimedOut>());
    assert_eq!((calls, stops), (3, vec![Stop::Attempts]));
}

// Goal R-13.
// threat 43
#[tokio::test(start_paused = true)]
async fn an_unsafe_call_is_repeated_only_if_it_was_not_processed() {
    let ask = Ask {
        is_idempotent: false,
        ..SAFE
    };
    let (result, calls, stops) = attempts(ask, 2, late).await;
    result.unwrap_err();
    assert_eq!((calls, stops), (1, vec![Stop::Unsafe]));
    let (result, calls, _) = attempts(ask, 2, full).await;
    assert_eq!((result.unwrap(), calls), (2, 2));
}

/// Becomes safe to repeat once it was sent.
#[derive(Clone, Debug, Default)]
struct Learning(Arc<AtomicBool>);

impl Replay for Learning {
    fn try_replay(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn is_idempotent(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_proves_safe_to_repeat_on_its_way_is_repeated() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = service_fn(move |ask: Learning| {
        ask.0.store(true, Ordering::SeqCst);
        let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if is_first {
                Err(BoxError::from("lost"))
            } else {
                Ok(())
            }
        }
    });
    let budget = Budget::new(BudgetConfig::default()).unwrap();
    let retry = RetryLayer::new(RetryConfig::default(), budget, ErrorClassifier::new()).unwrap();
    retry
        .layer(service)
        .oneshot(Learning::default())
        .await
        .unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_copy_or_time_is_not_repeated() {
    let (_, calls, stops) = attempts(
        Ask {
            has_copy: false,
            ..SAFE
        },
        2,
        full,
    )
    .await;
    assert_eq!((calls, stops), (1, vec![Stop::NotReplayable]));
    let now = tokio::time::Instant::now().into_std();
    let soon = Some(Deadline::after(now, Duration::from_millis(900)));
    let (_, calls, stops) = attempts(
        Ask {
            deadline: soon,
            ..SAFE
        },
        2,
        late,
    )
    .await;
    assert_eq!((calls, stops), (1, vec![Stop::Deadline]));
    assert_eq!(
        tokio::time::Instant::now().into_std(),
        now,
        "and does not wait either"
    );
    let (_, calls, stops) =
        attempts(SAFE, 2, || BreakerOpen::new(Duration::from_mins(1)).into()).await;
    assert_eq!((calls, stops), (1, vec![Stop::NotRetryable]));
}

// Goal R-4.
// threat 45
#[tokio::test(start_paused = true)]
async fn retries_in_an_outage_stay_within_the_budget() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let inner = service_fn(move |_: Ask| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err::<(), _>(late()) }
    });
    let (layer, _) = layer(
        BudgetConfig::default()
            .with_reserve(0)
            .with_window(Duration::from_hours(24)),
    );
    let mut service: Retry<_, _> = layer.layer(inner);
    for _ in 0..1_000 {
        service.ready().await.unwrap().call(SAFE).await.unwrap_err();
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!((1_150..=1_200).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn one_deadline_covers_all_attempts_and_each_has_its_own() {
    let (layer, seen) = layer(BudgetConfig::default());
    let stack = ServiceBuilder::new()
        .layer(TimeoutLayer::total(Duration::from_secs(8)).unwrap())
        .layer(layer)
        .layer(TimeoutLayer::within_deadline(Duration::from_secs(3)).unwrap())
        .service(service_fn(|_: Ask| {
            std::future::pending::<Result<(), BoxError>>()
        }));
    let begin = tokio::time::Instant::now();
    // 3 s, a wait of 1 s, 3 s: the next wait of 2 s would end at 9 s, so the last error comes at 7 s.
    let error = stack.oneshot(SAFE).await.unwrap_err();
    assert_eq!(
        error.downcast_ref::<TimedOut>().unwrap().after,
        Duration::from_secs(3)
    );
    assert_eq!(begin.elapsed().as_secs(), 7);
    assert_eq!(*seen.0.lock().unwrap(), [Stop::Deadline]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_ends_it_at_every_await() {
    let alive = Arc::new(());
    for millis in [500, 1_500, 2_500, 4_500] {
        let held = Arc::clone(&alive);
        // Each attempt takes a second, and so does the first wait.
        let inner = service_fn(move |_: Ask| {
            let held = Arc::clone(&held);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(held);
                Err::<(), _>(late())
            }
        });
        let (layer, _) = layer(BudgetConfig::default());
        let call = layer.layer(inner).oneshot(SAFE);
        tokio::time::timeout(Duration::from_millis(millis), call)
            .await
            .unwrap_err();
        assert_eq!(Arc::strong_count(&alive), 1, "after {millis} ms");
    }
}

#[test]
fn a_configuration_out_of_range_is_refused() {
    Budget::new(BudgetConfig::default().with_ratio(-0.1)).unwrap_err();
    Budget::new(BudgetConfig::default().with_window(Duration::ZERO)).unwrap_err();
    let budget = Budget::new(BudgetConfig::default()).unwrap();
    let config = RetryConfig::default()
        .with_factor(f64::NAN)
        .with_max_attempts(NonZeroU32::MIN);
    RetryLayer::new(config, budget, ErrorClassifier::new()).unwrap_err();
}
