//! The breaker against a model that derives its state from the whole history, and around a service.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::pending;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesh_resilience::breaker::{
    Breaker, BreakerConfig, BreakerLayer, BreakerOpen, Observe, Permit, State, SuccessRate,
};
use mesh_resilience::classify::{ErrorClassifier, Outcome};
use mesh_resilience::{BoxError, ConfigError, find_cause};
use proptest::prelude::*;
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

/// What happened since the last change of state, and nothing else.
struct Model {
    state: State,
    since: Vec<Outcome>,
    opened: Instant,
    era: usize,
    probes: usize,
}

impl Model {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.since.clear();
        self.era += 1;
        self.probes = 0;
    }

    fn admit(&mut self, now: Instant) -> bool {
        if self.state == State::Open && now >= self.opened + MINUTE {
            self.enter(State::HalfOpen);
        }
        let admits = match self.state {
            State::Closed => true,
            State::HalfOpen => self.probes < 3,
            _ => false,
        };
        self.probes += usize::from(admits);
        admits
    }

    fn finish(&mut self, era: usize, outcome: Option<Outcome>, now: Instant) {
        if era != self.era {
            return;
        }
        self.probes -= 1;
        self.since
            .extend(outcome.filter(|o| matches!(o, Outcome::Success | Outcome::Failure)));
        let is_failure = |outcome: &&Outcome| **outcome == Outcome::Failure;
        let opens = match self.state {
            State::Closed => self.since.iter().rev().take_while(is_failure).count() >= 5,
            _ => self.since.iter().any(|outcome| is_failure(&outcome)),
        };
        if opens {
            self.opened = now;
            self.enter(State::Open);
        } else if self.state == State::HalfOpen && self.since.len() == 3 {
            self.enter(State::Closed);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Call,
    Finish(prop::sample::Index, Option<Outcome>),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        6 => Just(Some(Outcome::Failure)),
        4 => Just(Some(Outcome::Success)),
        1 => Just(Some(Outcome::CallerError)),
        1 => Just(Some(Outcome::Unknown)),
        1 => Just(None),
    ];
    prop_oneof![
        1 => (0_u64..70_000).prop_map(Step::Wait),
        6 => Just(Step::Call),
        6 => (any::<prop::sample::Index>(), outcome).prop_map(|(call, outcome)| Step::Finish(call, outcome)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    // Goal R-5, threat 46: opens after exactly five, at most three probes, three successes close, one failure
    // reopens, and results from before a change are not counted.
    #[test]
    fn follows_the_model_step_by_step(steps in prop::collection::vec(step(), 1..120)) {
        let mut now = now();
        let breaker = exact(BreakerConfig::default());
        let mut model = Model { state: State::Closed, since: vec![], opened: now, era: 0, probes: 0 };
        let mut calls: Vec<(Permit, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Call => {
                    let permit = breaker.try_acquire(now);
                    prop_assert_eq!(permit.is_ok(), model.admit(now));
                    if let Ok(permit) = permit {
                        calls.push((permit, model.era));
                    }
                }
                Step::Finish(call, outcome) if !calls.is_empty() => {
                    let (permit, era) = calls.swap_remove(call.index(calls.len()));
                    match outcome {
                        Some(outcome) => permit.record(outcome, now),
                        None => drop(permit),
                    }
                    model.finish(era, outcome, now);
                }
                Step::Finish(..) => {}
            }
            let is_due = model.state == State::Open && now >= model.opened + MINUTE;
            prop_assert_eq!(breaker.state(now), if is_due { State::HalfOpen } else { model.state });
        }
    }
}

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

#[test]
fn changes_are_reported_in_order() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);
    impl Observe for Seen {
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
    let later = now + MINUTE;
    for _ in 0..3 {
        breaker
            .try_acquire(later)
            .unwrap()
            .record(Outcome::Success, later);
    }
    assert_eq!(
        *seen.0.lock().unwrap(),
        ["CLOSED to OPEN", "OPEN to HALF-OPEN", "HALF-OPEN to CLOSED"]
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
