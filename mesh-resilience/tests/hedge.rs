//! Hedging around services, on a paused clock.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use mesh_resilience::BoxError;
use mesh_resilience::budget::{Budget, BudgetConfig};
use mesh_resilience::classify::ErrorClassifier;
use mesh_resilience::deadline::Deadline;
use mesh_resilience::hedge::{Hedge, HedgeConfig, HedgeLayer, Observe};
use mesh_resilience::refusal::Limited;
use mesh_resilience::replay::{Attempt, Replay};
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
struct Ask {
    is_idempotent: bool,
    attempt: Attempt,
    deadline: Option<Deadline>,
}

fn ask() -> Ask {
    Ask {
        is_idempotent: true,
        attempt: Attempt::FIRST,
        deadline: None,
    }
}

impl Replay for Ask {
    fn try_replay(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    fn attempt(&self) -> Attempt {
        self.attempt
    }

    fn begin_attempt(&mut self, attempt: Attempt) {
        self.attempt = attempt;
    }
}

fn plenty() -> Budget {
    Budget::new(BudgetConfig::default().with_ratio(10.0).with_reserve(1000)).unwrap()
}

fn hedge() -> Hedge {
    Hedge::new(HedgeConfig::fixed(20 * MS), plenty()).unwrap()
}

#[derive(Default)]
struct Seen {
    hedged: AtomicU32,
    won: AtomicU32,
    refused: AtomicU32,
}

impl Observe for Seen {
    fn hedged(&self, after: Duration) {
        assert_eq!(after, 20 * MS);
        self.hedged.fetch_add(1, Ordering::Relaxed);
    }

    fn won(&self) {
        self.won.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each attempt takes its own time and ends in its own way; counts those that are under way.
fn service(
    alive: &Arc<()>,
    first: (u32, Result<&'static str, &'static str>),
    second: (u32, Result<&'static str, &'static str>),
) -> impl Service<
    Ask,
    Response = &'static str,
    Error = BoxError,
    Future = impl Future<Output = Result<&'static str, BoxError>>,
> + Clone {
    let alive = Arc::clone(alive);
    service_fn(move |ask: Ask| {
        let alive = Arc::clone(&alive);
        async move {
            let (ms, result) = if ask.attempt == Attempt::FIRST {
                first
            } else {
                second
            };
            sleep(MS * ms).await;
            drop(alive);
            result.map_err(BoxError::from)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_faster_attempt_answers_and_the_other_stops_at_once() {
    let alive = Arc::new(());
    let seen = Arc::new(Seen::default());
    let hedge = hedge().with_observer(Arc::<Seen>::clone(&seen));
    let inner = service(&alive, (500, Ok("first")), (30, Ok("second")));
    let mut service = HedgeLayer::new(hedge.clone(), ErrorClassifier::new()).layer(inner);
    let before = Arc::strong_count(&alive);
    let begun = Instant::now();
    let mut call = Box::pin(service.ready().await.unwrap().call(ask()));
    assert_eq!(call.as_mut().await.unwrap(), "second");
    assert_eq!(begun.elapsed(), 50 * MS);
    assert_eq!(
        Arc::strong_count(&alive),
        before,
        "the loser is gone though the future is not"
    );
    drop(call);
    let shown = hedge.snapshot(Instant::now().into_std());
    assert_eq!((shown.hedged, shown.won, shown.refused), (1, 1, 0));
    assert_eq!(seen.won.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_that_is_quick_or_not_repeatable_stays_alone() {
    let alive = Arc::new(());
    let seen = Arc::new(Seen::default());
    let hedge = hedge().with_observer(Arc::<Seen>::clone(&seen));
    let quick = service(&alive, (19, Ok("first")), (0, Ok("second")));
    let layer = HedgeLayer::new(hedge, ErrorClassifier::new());
    assert_eq!(layer.layer(quick).oneshot(ask()).await.unwrap(), "first");
    let slow = service(&alive, (500, Ok("first")), (0, Ok("second")));
    let write = Ask {
        is_idempotent: false,
        ..ask()
    };
    assert_eq!(
        layer.layer(slow.clone()).oneshot(write).await.unwrap(),
        "first"
    );
    let retry = Ask {
        attempt: Attempt::FIRST.next(),
        ..ask()
    };
    layer.layer(slow.clone()).oneshot(retry).await.unwrap();
    let soon = Deadline::after(Instant::now().into_std(), 20 * MS);
    let hurried = Ask {
        deadline: Some(soon),
        ..ask()
    };
    assert_eq!(layer.layer(slow).oneshot(hurried).await.unwrap(), "first");
    assert_eq!(seen.hedged.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_starts_the_second_at_once_and_one_beside_another_attempt_is_forgotten() {
    let alive = Arc::new(());
    let layer = HedgeLayer::new(hedge(), ErrorClassifier::new());
    let begun = Instant::now();
    let inner = service(&alive, (5, Err("down")), (5, Ok("second")));
    assert_eq!(layer.layer(inner).oneshot(ask()).await.unwrap(), "second");
    assert_eq!(begun.elapsed(), 10 * MS);
    let inner = service(&alive, (100, Ok("first")), (5, Err("down")));
    assert_eq!(layer.layer(inner).oneshot(ask()).await.unwrap(), "first");
    let inner = service(&alive, (100, Err("one")), (200, Err("two")));
    let error = layer.layer(inner).oneshot(ask()).await.unwrap_err();
    assert_eq!(error.to_string(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_asks_to_be_left_alone_is() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let inner = service_fn(move |ask: Ask| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            let wait = if ask.deadline.is_some() {
                10 * MS
            } else {
                60_000 * MS
            };
            Err::<(), _>(BoxError::from(Limited::new(1, wait, wait)))
        }
    });
    let layer = HedgeLayer::new(hedge(), ErrorClassifier::new());
    let begun = Instant::now();
    layer.layer(inner.clone()).oneshot(ask()).await.unwrap_err();
    assert_eq!(
        (calls.load(Ordering::Relaxed), begun.elapsed()),
        (1, Duration::ZERO)
    );
    let far = Deadline::after(Instant::now().into_std(), 1000 * MS);
    let asked = Ask {
        deadline: Some(far),
        ..ask()
    };
    layer.layer(inner).oneshot(asked).await.unwrap_err();
    assert_eq!(
        (calls.load(Ordering::Relaxed), begun.elapsed()),
        (3, 10 * MS)
    );
}

#[tokio::test(start_paused = true)]
async fn hedges_stay_within_both_budgets() {
    let alive = Arc::new(());
    let seen = Arc::new(Seen::default());
    let own = Budget::new(HedgeConfig::budget()).unwrap();
    let hedge = Hedge::new(HedgeConfig::fixed(20 * MS), own)
        .unwrap()
        .with_observer(Arc::<Seen>::clone(&seen));
    let slow = service(&alive, (25, Ok("first")), (25, Ok("second")));
    let run = async |hedge: &Hedge| {
        let layer = HedgeLayer::new(hedge.clone(), ErrorClassifier::new());
        let calls: Vec<_> = (0..200)
            .map(|_| Box::pin(layer.layer(slow.clone()).oneshot(ask())))
            .collect();
        for mut call in calls {
            // Polled once, so that all have begun.
            drop(timeout(Duration::ZERO, &mut call).await);
            tokio::task::yield_now().await;
            drop(call.await);
        }
    };
    run(&hedge).await;
    // A call after the other, so the budget grows by one for twenty calls.
    let hedged = seen.hedged.load(Ordering::Relaxed);
    assert!((8..=10).contains(&hedged), "{hedged}");
    assert_eq!(hedged + seen.refused.load(Ordering::Relaxed), 200);
    let none = Budget::new(BudgetConfig::default().with_ratio(0.0).with_reserve(0)).unwrap();
    let shared = hedge.sharing(none);
    run(&shared).await;
    assert_eq!(seen.hedged.load(Ordering::Relaxed), hedged);
}

#[tokio::test(start_paused = true)]
async fn the_delay_follows_what_calls_take() {
    let config = HedgeConfig::default();
    let hedge = Hedge::new(config.clone(), plenty()).unwrap();
    let inner = service_fn(|_: Ask| async {
        sleep(8 * MS).await;
        Ok::<_, BoxError>(())
    });
    let service = HedgeLayer::new(hedge.clone(), ErrorClassifier::new()).layer(inner);
    assert_eq!(
        hedge.snapshot(Instant::now().into_std()).delay,
        config.max_delay
    );
    for _ in 0..30 {
        service.clone().oneshot(ask()).await.unwrap();
    }
    let delay = hedge.snapshot(Instant::now().into_std()).delay;
    assert!(delay >= 8 * MS && delay < 9 * MS, "{delay:?}");
    Hedge::new(HedgeConfig::default().with_quantile(1.0), plenty()).unwrap_err();
    Hedge::new(
        HedgeConfig::default().with_max_delay(Duration::ZERO),
        plenty(),
    )
    .unwrap_err();
    Hedge::new(HedgeConfig::default().with_min_delay(2000 * MS), plenty()).unwrap_err();
}
