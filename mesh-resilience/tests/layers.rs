//! Timeout, bulkhead and fallback around services, on a paused clock.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::pending;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_resilience::bulkhead::{
    Bulkhead, BulkheadConfig, BulkheadFull, BulkheadLayer, Observe, Permit, Refused,
};
use mesh_resilience::fallback::FallbackLayer;
use mesh_resilience::timeout::{DEFAULT_TIMEOUT, Deadline, TimedOut, TimeoutLayer};
use mesh_resilience::{BoxError, find_cause};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn bulkhead(concurrent: usize, waiting: usize) -> Bulkhead {
    let concurrent = NonZeroUsize::new(concurrent).unwrap();
    Bulkhead::new(
        &BulkheadConfig::default()
            .with_max_concurrent(concurrent)
            .with_max_waiting(waiting),
    )
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_ended_and_dropped() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let hang = service_fn(move |()| {
        let held = Arc::clone(&held);
        async move {
            pending::<()>().await;
            drop(held);
            Ok::<_, BoxError>(())
        }
    });
    let mut service = TimeoutLayer::new(DEFAULT_TIMEOUT).unwrap().layer(hang);
    let begin = Instant::now();
    let mut call = Box::pin(service.call(()));
    let error = call.as_mut().await.unwrap_err();
    assert_eq!(
        find_cause::<TimedOut>(&error),
        Some(&TimedOut::new(DEFAULT_TIMEOUT))
    );
    assert_eq!(begin.elapsed().as_secs(), 30);
    assert_eq!(
        Arc::strong_count(&alive),
        2,
        "dropped though the future is still there"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes_and_zero_is_refused() {
    let slow = service_fn(|()| async {
        tokio::time::sleep(SECOND).await;
        Ok::<_, BoxError>(1)
    });
    assert_eq!(
        TimeoutLayer::new(2 * SECOND)
            .unwrap()
            .layer(slow)
            .oneshot(())
            .await
            .unwrap(),
        1
    );
    TimeoutLayer::new(Duration::ZERO).unwrap_err();
}

#[test]
fn a_deadline_saturates() {
    let now = Instant::now().into_std();
    let forever = Deadline::after(now, Duration::MAX);
    assert!(forever.remaining(now) > Duration::from_hours(24 * 365));
    let soon = Deadline::after(now, SECOND);
    assert!(soon.is_past(now + SECOND) && !soon.is_past(now));
    assert_eq!(soon.remaining(now + 2 * SECOND), Duration::ZERO);
    assert_eq!(forever.earlier(soon), soon);
}

// Goal R-8.
// threat 44
#[tokio::test(start_paused = true)]
async fn the_next_call_waits_and_the_one_after_the_queue_is_refused() {
    let gate = Arc::new(Semaphore::new(0));
    let opens = Arc::clone(&gate);
    let inner = service_fn(move |name: u32| {
        let gate = Arc::clone(&opens);
        async move {
            gate.acquire().await?.forget();
            Ok::<_, BoxError>(name)
        }
    });
    let bulkhead = bulkhead(1, 2);
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(inner);
    let mut calls: Vec<_> = (0..4).map(|name| Box::pin(service.call(name))).collect();
    for call in &mut calls[..3] {
        timeout(SECOND, call).await.unwrap_err();
    }
    assert!(find_cause::<BulkheadFull>(&calls.pop().unwrap().await.unwrap_err()).is_some());
    assert_eq!((bulkhead.running(), bulkhead.waiting()), (1, 2));
    gate.add_permits(3);
    for (name, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), name);
    }
    assert_eq!((bulkhead.running(), bulkhead.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_can_stay_with_the_response() {
    let bulkhead = bulkhead(1, 0);
    let echo = service_fn(|body: &'static str| async move { Ok::<_, BoxError>(body) });
    let layer = BulkheadLayer::holding(bulkhead.clone(), |permit: Permit, body: &'static str| {
        (body, permit)
    });
    let mut service = layer.layer(echo);
    let (body, permit) = service
        .ready()
        .await
        .unwrap()
        .call("streaming")
        .await
        .unwrap();
    assert_eq!((body, bulkhead.running()), ("streaming", 1));
    service
        .ready()
        .await
        .unwrap()
        .call("next")
        .await
        .unwrap_err();
    drop(permit);
    let (body, _permit) = service.ready().await.unwrap().call("next").await.unwrap();
    assert_eq!(body, "next");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_loses_nobody_a_place() {
    let bulkhead = bulkhead(1, 3);
    let permit = bulkhead.try_acquire().unwrap();
    let mut first = Box::pin(bulkhead.acquire());
    let mut second = Box::pin(bulkhead.acquire());
    let third = bulkhead.acquire();
    for waiter in [&mut first, &mut second] {
        timeout(SECOND, waiter).await.unwrap_err();
    }
    drop(third);
    assert_eq!(bulkhead.waiting(), 2);
    // The permit goes to the first, who leaves without having looked: the second gets it.
    drop(permit);
    bulkhead.try_acquire().expect_err("nobody jumps the queue");
    drop(first);
    let permit = timeout(SECOND, second).await.unwrap().unwrap();
    assert_eq!((bulkhead.running(), bulkhead.waiting()), (1, 0));
    drop(permit);
    drop(bulkhead.acquire());
    assert_eq!(bulkhead.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_as_long_as_it_may_is_refused_and_the_next_comes() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<Refused>>);
    impl Observe for Seen {
        fn refused(&self, why: Refused) {
            self.0.lock().unwrap().push(why);
        }
    }
    let seen = Arc::new(Seen::default());
    let observer: Arc<dyn Observe> = Arc::<Seen>::clone(&seen);
    let config = BulkheadConfig::default()
        .with_max_concurrent(NonZeroUsize::MIN)
        .with_max_waiting(2);
    let patient = config.clone().with_max_wait(SECOND);
    let bulkhead = Bulkhead::with_observer(&patient, Some(observer));
    let begin = Instant::now();
    let permit = bulkhead.acquire().await.unwrap();
    let first = bulkhead.acquire();
    tokio::time::advance(SECOND / 2).await;
    let second = bulkhead.acquire();
    bulkhead.acquire().await.expect_err("the queue is full");
    first.await.expect_err("its time is up");
    assert_eq!(begin.elapsed().as_secs(), 1);
    drop(permit);
    drop(second.await.unwrap());
    assert_eq!(begin.elapsed().as_secs(), 1);
    assert_eq!(
        *seen.0.lock().unwrap(),
        [Refused::QueueFull, Refused::WaitedTooLong]
    );

    let at_once = Bulkhead::new(&config.with_max_wait(Duration::ZERO));
    let _permit = at_once.acquire().await.unwrap();
    at_once.acquire().await.expect_err("nobody waits");
}

#[tokio::test(start_paused = true)]
async fn a_failed_or_dropped_call_gives_its_place_back() {
    let bulkhead = bulkhead(1, 1);
    let fails = service_fn(|hangs: bool| async move {
        if hangs {
            pending::<()>().await;
        }
        Err::<(), BoxError>("down".into())
    });
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(fails);
    service
        .ready()
        .await
        .unwrap()
        .call(false)
        .await
        .unwrap_err();
    assert_eq!(bulkhead.running(), 0);
    let hanging = service.ready().await.unwrap().call(true);
    let waiting = service.ready().await.unwrap().call(false);
    timeout(SECOND, hanging).await.unwrap_err();
    timeout(SECOND, waiting).await.unwrap().unwrap_err();
    assert_eq!((bulkhead.running(), bulkhead.waiting()), (0, 0));
}

#[tokio::test]
async fn a_fallback_answers_some_errors_and_passes_others_on() {
    let fails = service_fn(|fails: bool| async move {
        Err::<&str, BoxError>(if fails {
            "down".into()
        } else {
            BulkheadFull::new().into()
        })
    });
    let from_cache = |error: BoxError| {
        if find_cause::<BulkheadFull>(&error).is_some() {
            Ok("cached")
        } else {
            Err(error)
        }
    };
    let mut service = FallbackLayer::new(from_cache).layer(fails);
    assert_eq!(
        service.ready().await.unwrap().call(false).await.unwrap(),
        "cached"
    );
    assert_eq!(
        service
            .ready()
            .await
            .unwrap()
            .call(true)
            .await
            .unwrap_err()
            .to_string(),
        "down"
    );
}
