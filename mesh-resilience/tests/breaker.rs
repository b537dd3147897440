//! The breaker case by case, and around a service.
#![cfg(feature = "breaker")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::pending;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesh_resilience::breaker::{
    Breaker, BreakerConfig, BreakerLayer, BreakerOpen, Observe, SlowCalls, State, SuccessRate,
};
use mesh_resilience::classify::{ErrorClassifier, Outcome};
use mesh_resilience::{BoxError, ConfigError, find_cause};
use tower::{Layer, Service, ServiceExt, service_fn};

const MINUTE: Duration = Duration::from_mins(1);

/// A breaker whose open time is exactly as configured: the middle of the jitter range.
fn exact(config: BreakerConfig) -> Breaker {
    Breaker::with_parts(config, Arc::new(|| 1_u64 << 63), None).unwrap()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn fail(breaker: &Breaker, times: usize, now: Instant) {
    for _ in 0..times {
        breaker
            .try_acquire(now)
            .unwrap()
            .record(Outcome::Failure, now);
    }
}

// threat 46
#[test]
fn the_open_time_strays_by_less_than_a_second() {
    for (bits, millis) in [(0, 59_100), (1 << 63, 60_000), (u64::MAX, 60_900)] {
        let now = now();
        let breaker =
            Breaker::with_parts(BreakerConfig::default(), Arc::new(move || bits), None).unwrap();
        fail(&breaker, 5, now);
        let wait = breaker.retry_after(now);
        assert!(
            wait.abs_diff(Duration::from_millis(millis)) < Duration::from_micros(1),
            "{wait:?}"
        );
        assert_eq!(
            breaker.try_acquire(now).unwrap_err(),
            BreakerOpen::new(wait)
        );
    }
}

#[test]
fn a_low_success_rate_opens_once_there_is_volume() {
    let now = now();
    let rate = SuccessRate::default()
        .with_min_volume(NonZeroU32::new(10).unwrap())
        .with_min_ratio(0.6);
    let breaker = exact(BreakerConfig::default().with_success_rate(rate));
    let mut results = [Outcome::Success, Outcome::Failure].into_iter().cycle();
    for _ in 0..9 {
        breaker
            .try_acquire(now)
            .unwrap()
            .record(results.next().unwrap(), now);
    }
    assert_eq!(breaker.state(now), State::Closed);
    breaker
        .try_acquire(now)
        .unwrap()
        .record(Outcome::Failure, now);
    assert_eq!(breaker.state(now), State::Open);
}

#[test]
fn the_success_rate_forgets_what_left_the_window() {
    let start = now();
    let rate = SuccessRate::default().with_min_volume(NonZeroU32::new(4).unwrap());
    let breaker = exact(BreakerConfig::default().with_success_rate(rate));
    fail(&breaker, 3, start);
    let later = start + Duration::from_secs(31);
    breaker
        .try_acquire(later)
        .unwrap()
        .record(Outcome::Success, later);
    fail(&breaker, 2, later);
    assert_eq!(breaker.state(later), State::Closed);
    fail(&breaker, 1, later);
    assert_eq!(breaker.state(later), State::Open);
}

/// Reports calls that took `millis` each.
fn take(breaker: &Breaker, millis: &[u64], outcome: Outcome, mut now: Instant) -> Instant {
    for millis in millis {
        let permit = breaker.try_acquire(now).unwrap();
        now += Duration::from_millis(*millis);
        permit.record(outcome, now);
    }
    now
}

fn slow_calls() -> BreakerConfig {
    let slow = SlowCalls::default()
        .with_longer_than(Duration::from_millis(100))
        .with_min_volume(NonZeroU32::new(4).unwrap());
    BreakerConfig::default().with_slow_calls(slow)
}

#[test]
fn opens_when_half_of_the_calls_are_slow_though_all_succeed() {
    let breaker = exact(slow_calls());
    let now = take(&breaker, &[101, 101, 100], Outcome::Success, now());
    assert_eq!(breaker.state(now), State::Closed, "three are too few");
    let now = take(&breaker, &[100, 100], Outcome::Success, now);
    let slow = breaker.snapshot(now).slow.unwrap();
    assert_eq!((slow.part, slow.of), (2, 5));
    assert_eq!(breaker.state(now), State::Closed, "two of five are");
    let now = take(&breaker, &[101], Outcome::Success, now);
    assert_eq!(breaker.state(now), State::Open, "three of six are not");
}

#[test]
fn a_probe_that_succeeds_slowly_opens_again() {
    let breaker = exact(slow_calls());
    let begin = now();
    fail(&breaker, 5, begin);
    let now = take(&breaker, &[50, 101], Outcome::Success, begin + MINUTE);
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.state, snapshot.opened), (State::Open, 2));
    assert_eq!(snapshot.retry_after, MINUTE);
}

// threat 46
#[test]
fn probes_that_hang_do_not_keep_it_half_open() {
    let breaker = exact(BreakerConfig::default());
    let begin = now();
    fail(&breaker, 5, begin);
    let probed = begin + MINUTE;
    let hung: Vec<_> = (0..3).map(|_| breaker.try_acquire(probed)).collect();
    let almost = probed + Duration::from_millis(59_999);
    breaker.try_acquire(almost).unwrap_err();
    assert_eq!(breaker.state(almost), State::HalfOpen);
    breaker.try_acquire(probed + MINUTE).unwrap_err();
    assert_eq!(breaker.state(probed + MINUTE), State::Open);
    let again = probed + 2 * MINUTE;
    assert!(breaker.try_acquire(again).unwrap().is_probe());
    // What the hung ones say in the end is about another time.
    for permit in hung {
        permit.unwrap().record(Outcome::Success, again);
    }
    assert_eq!(breaker.state(again), State::HalfOpen);
}

#[test]
fn it_is_opened_and_closed_by_hand() {
    let breaker = exact(BreakerConfig::default());
    let now = now();
    let before = breaker.try_acquire(now).unwrap();
    breaker.trip(now);
    assert_eq!(breaker.try_acquire(now).unwrap_err().retry_after, MINUTE);
    breaker.reset();
    before.record(Outcome::Failure, now);
    fail(&breaker, 4, now);
    assert_eq!(
        breaker.state(now),
        State::Closed,
        "what was before counts no more"
    );
    assert_eq!(breaker.snapshot(now).failures, 4);
}

#[test]
fn changes_and_refusals_are_reported_in_order() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);
    impl Observe for Seen {
        fn refused(&self) {
            self.0.lock().unwrap().push("refused".to_owned());
        }

        fn state_changed(&self, from: State, to: State) {
            self.0.lock().unwrap().push(format!("{from} to {to}"));
        }
    }
    let seen = Arc::new(Seen::default());
    let observer: Arc<dyn Observe> = Arc::<Seen>::clone(&seen);
    let breaker =
        Breaker::with_parts(BreakerConfig::default(), Arc::new(|| 0_u64), Some(observer)).unwrap();
    let now = now();
    fail(&breaker, 5, now);
    breaker.try_acquire(now).unwrap_err();
    let later = now + MINUTE;
    for _ in 0..3 {
        breaker
            .try_acquire(later)
            .unwrap()
            .record(Outcome::Success, later);
    }
    assert_eq!(
        *seen.0.lock().unwrap(),
        [
            "CLOSED to OPEN",
            "refused",
            "OPEN to HALF-OPEN",
            "HALF-OPEN to CLOSED"
        ]
    );
}

#[test]
fn a_configuration_out_of_range_is_refused() {
    let jitter = Breaker::new(BreakerConfig::default().with_jitter_ratio(0.2)).unwrap_err();
    assert!(matches!(
        jitter,
        ConfigError::OutOfRange {
            field: "jitter_ratio",
            ..
        }
    ));
    let open_for =
        Breaker::new(BreakerConfig::default().with_open_for(Duration::ZERO)).unwrap_err();
    assert_eq!(open_for, ConfigError::ZeroDuration { field: "open_for" });
    let slow = SlowCalls::default().with_max_ratio(0.0);
    Breaker::new(BreakerConfig::default().with_slow_calls(slow)).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_layer_opens_refuses_and_recovers() {
    let breaker = exact(BreakerConfig::default());
    let echo = service_fn(|fails: bool| async move {
        if fails {
            Err("down".into())
        } else {
            Ok::<_, BoxError>(7)
        }
    });
    let mut service = BreakerLayer::new(breaker.clone(), ErrorClassifier::new()).layer(echo);
    for _ in 0..5 {
        service.ready().await.unwrap().call(true).await.unwrap_err();
    }
    let refused = service
        .ready()
        .await
        .unwrap()
        .call(false)
        .await
        .unwrap_err();
    assert_eq!(
        find_cause::<BreakerOpen>(&refused).unwrap().retry_after,
        MINUTE
    );
    tokio::time::advance(MINUTE).await;
    for _ in 0..3 {
        assert_eq!(breaker.state(now()), State::HalfOpen);
        assert_eq!(service.ready().await.unwrap().call(false).await.unwrap(), 7);
    }
    assert_eq!(breaker.state(now()), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_answers_though_the_service_is_not_ready() {
    #[derive(Clone)]
    struct NeverReady;
    impl Service<()> for NeverReady {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Pending<Result<(), BoxError>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), BoxError>> {
            std::task::Poll::Pending
        }
        fn call(&mut self, (): ()) -> Self::Future {
            pending()
        }
    }
    let breaker = exact(BreakerConfig::default());
    fail(&breaker, 5, now());
    let service = BreakerLayer::new(breaker, ErrorClassifier::new()).layer(NeverReady);
    assert!(find_cause::<BreakerOpen>(&service.oneshot(()).await.unwrap_err()).is_some());
}

// threat 46
#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_slot_back() {
    let breaker = exact(BreakerConfig::default());
    fail(&breaker, 5, now());
    tokio::time::advance(MINUTE).await;
    let hang = service_fn(|()| pending::<Result<(), BoxError>>());
    let mut service = BreakerLayer::new(breaker.clone(), ErrorClassifier::new()).layer(hang);
    for is_polled in [false, true] {
        let mut probes: Vec<_> = (0..3).map(|_| Box::pin(service.call(()))).collect();
        if is_polled {
            for probe in &mut probes {
                tokio::time::timeout(Duration::ZERO, probe)
                    .await
                    .unwrap_err();
            }
        }
        breaker.try_acquire(now()).expect_err("a fourth probe");
        drop(probes);
        assert!(breaker.try_acquire(now()).unwrap().is_probe());
    }
    assert_eq!(breaker.state(now()), State::HalfOpen);
}
