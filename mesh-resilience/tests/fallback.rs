//! Fallbacks around services, on a paused clock.
#![cfg(feature = "fallback")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_resilience::BoxError;
use mesh_resilience::classify::{Classified, ErrorClassifier, Outcome};
use mesh_resilience::deadline::Deadline;
use mesh_resilience::fallback::other::OtherLayer;
use mesh_resilience::fallback::stale::{Keep, Observe, Stale, StaleConfig, StaleLayer, Weight};
use mesh_resilience::fallback::{FallbackLayer, Fixed};
use mesh_resilience::refusal::BreakerOpen;
use mesh_resilience::replay::{Attempt, Replay};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Statuses as in HTTP.
fn by_status(result: Result<&u16, &BoxError>) -> Classified {
    match result {
        Ok(500..) => Classified::failure(),
        Ok(400..) => Classified::new(Outcome::CallerError),
        Ok(_) => Classified::success(),
        Err(error) => Classified::of_error(error),
    }
}

#[tokio::test]
async fn a_fixed_answer_is_for_failures_and_refusals_and_not_for_mistakes() {
    let echo = service_fn(|status: u16| async move {
        if status == 0 {
            return Err(BoxError::from(BreakerOpen::new(SECOND)));
        }
        Ok(status)
    });
    let mut service = FallbackLayer::new(Fixed::new(|| 203, by_status)).layer(echo);
    for (status, expected) in [(200, 200), (404, 404), (503, 203), (0, 203)] {
        assert_eq!(service.call(status).await.unwrap(), expected);
    }
}

/// A call, what becomes of it at the first service, and whether that remembers it.
#[derive(Clone)]
struct Call {
    is_idempotent: bool,
    is_bound: Arc<AtomicBool>,
    deadline: Option<Deadline>,
    attempt: Attempt,
    has_copy: bool,
}

impl Call {
    fn new(is_idempotent: bool) -> Self {
        Self {
            is_idempotent,
            is_bound: Arc::default(),
            deadline: None,
            attempt: Attempt::FIRST,
            has_copy: true,
        }
    }
}

impl Replay for Call {
    fn try_replay(&self) -> Option<Self> {
        self.has_copy.then(|| self.clone())
    }

    fn is_idempotent(&self) -> bool {
        self.is_idempotent || self.is_bound.load(Ordering::Relaxed)
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

/// Makes a call that ends so at the first service; gives the answer, and as which attempt the other one was called.
async fn make(
    call: Call,
    first: impl Fn(&Call) -> Result<u16, BoxError> + Clone,
) -> (Result<u16, BoxError>, Option<u32>) {
    let seen = Arc::new(Mutex::new(None));
    let other = service_fn(|call: Call| {
        *seen.lock().unwrap() = Some(call.attempt.number().get());
        async { Ok::<u16, BoxError>(201) }
    });
    let first = service_fn(|call: Call| {
        let first = first.clone();
        async move {
            tokio::time::sleep(SECOND).await;
            first(&call)
        }
    });
    let service = OtherLayer::new(other, by_status).layer(first);
    let result = service.oneshot(call).await;
    let seen = *seen.lock().unwrap();
    (result, seen)
}

fn open() -> BoxError {
    BreakerOpen::new(SECOND).into()
}

#[tokio::test(start_paused = true)]
async fn another_service_is_called_once_and_knows_that_it_is_a_repeat() {
    let (answer, seen) = make(Call::new(true), |_| Ok(503)).await;
    assert_eq!((answer.unwrap(), seen), (201, Some(2)));
    let (answer, seen) = make(Call::new(true), |_| Err("reset".into())).await;
    assert_eq!((answer.unwrap(), seen), (201, Some(2)));
    let (answer, seen) = make(Call::new(true), |_| Ok(404)).await;
    assert_eq!((answer.unwrap(), seen), (404, None));
    let mut streaming = Call::new(true);
    streaming.has_copy = false;
    let (answer, seen) = make(streaming, |_| Ok(503)).await;
    assert_eq!((answer.unwrap(), seen), (503, None));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_been_made_goes_nowhere_else() {
    let (answer, seen) = make(Call::new(false), |_| Ok(503)).await;
    assert_eq!((answer.unwrap(), seen), (503, None));
    let (answer, seen) = make(Call::new(false), |_| Err("reset".into())).await;
    assert_eq!(
        (answer.unwrap_err().to_string().as_str(), seen),
        ("reset", None)
    );
    // It was never made: the breaker is open.
    let (answer, seen) = make(Call::new(false), |_| Err(open())).await;
    assert_eq!((answer.unwrap(), seen), (201, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_one_service_remembers_goes_to_no_other_though_its_last_attempt_was_refused() {
    // A retry layer below sent it once, which came to nothing known, and then ran into an open breaker.
    let bound_and_refused = |call: &Call| {
        call.is_bound.store(true, Ordering::Relaxed);
        Err(open())
    };
    let (answer, seen) = make(Call::new(false), bound_and_refused).await;
    answer.unwrap_err();
    assert_eq!(seen, None);
    let bound_and_failed = |call: &Call| {
        call.is_bound.store(true, Ordering::Relaxed);
        Ok(503)
    };
    let (answer, seen) = make(Call::new(false), bound_and_failed).await;
    assert_eq!((answer.unwrap(), seen), (503, None));
}

#[tokio::test(start_paused = true)]
async fn nobody_else_is_called_after_the_deadline() {
    let now = tokio::time::Instant::now().into_std();
    let mut call = Call::new(true);
    call.deadline = Some(Deadline::after(now, SECOND / 2));
    let (answer, seen) = make(call.clone(), |_| Ok(503)).await;
    assert_eq!((answer.unwrap(), seen), (503, None));
    call.deadline = Some(Deadline::after(now, 5 * SECOND));
    let (answer, seen) = make(call, |_| Ok(503)).await;
    assert_eq!((answer.unwrap(), seen), (201, Some(2)));
}

/// Keys are the requests' first halves, and none is 0; answers that are given are one more.
#[derive(Clone, Copy)]
struct Half;

impl Keep<(u8, u16), u16> for Half {
    type Key = u8;

    fn key(&self, request: &(u8, u16)) -> Option<u8> {
        Some(request.0).filter(|key| *key != 0)
    }

    fn weigh(&self, _: &u8, answer: &u16) -> Option<Weight> {
        (*answer != 204).then(|| Weight::new(usize::from(*answer)))
    }

    fn mark(&self, answer: &mut u16, age: Duration) {
        *answer = 10_000 + u16::try_from(age.as_secs()).unwrap();
    }
}

#[derive(Default)]
struct Ages(Mutex<Vec<Option<Duration>>>);

impl Observe for Ages {
    fn given(&self, age: Duration) {
        self.0.lock().unwrap().push(Some(age));
    }

    fn missed(&self) {
        self.0.lock().unwrap().push(None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_is_given_marked_until_it_is_too_old() {
    let ages = Arc::new(Ages::default());
    let config = StaleConfig::default()
        .with_max_age(10 * SECOND)
        .with_max_answer_bytes(300);
    let observer: Arc<dyn Observe> = Arc::clone(&ages) as Arc<dyn Observe>;
    let stale = Stale::new(config, Half).unwrap().with_observer(observer);
    let echo = service_fn(|(_, status): (u8, u16)| async move { Ok::<_, BoxError>(status) });
    let mut service = StaleLayer::new(stale.clone(), by_status).layer(echo);
    let mut call = async |key, status| service.call((key, status)).await.unwrap();
    assert_eq!(call(1, 503).await, 503);
    assert_eq!(call(1, 200).await, 200);
    tokio::time::advance(4 * SECOND).await;
    assert_eq!(call(1, 503).await, 10_004);
    assert_eq!(call(2, 503).await, 503);
    tokio::time::advance(6 * SECOND).await;
    assert_eq!(call(1, 503).await, 503);
    // A call without a key, an answer that may not be kept, one that is too large, and one that says that there is nothing.
    assert_eq!(call(0, 200).await, 200);
    assert_eq!(call(0, 503).await, 503);
    for last in [204, 301, 404] {
        assert_eq!(call(3, 200).await, 200);
        assert_eq!(call(3, 503).await, 10_000);
        assert_eq!(call(3, last).await, last);
        assert_eq!(call(3, 503).await, 503);
    }
    let said = stale.snapshot();
    assert_eq!((said.entries, said.bytes), (0, 0));
    assert_eq!((said.given, said.missed), (4, 6));
    let ages = ages.0.lock().unwrap();
    assert_eq!(ages.len(), 10);
    assert_eq!(ages[..2], [None, Some(4 * SECOND)]);
}

#[tokio::test]
async fn an_error_of_a_service_whose_errors_are_errors_is_answered_too() {
    let stale = Stale::new(StaleConfig::default(), Half).unwrap();
    let fails = service_fn(|(_, status): (u8, u16)| async move {
        if status == 500 {
            return Err(BoxError::from("reset"));
        }
        Ok(status)
    });
    let mut service = StaleLayer::new(stale, ErrorClassifier::new()).layer(fails);
    service.call((1, 500)).await.unwrap_err();
    assert_eq!(service.call((1, 200)).await.unwrap(), 200);
    assert_eq!(service.call((1, 500)).await.unwrap(), 10_000);
}

#[test]
fn a_memory_that_makes_no_sense_names_its_field() {
    let small = StaleConfig::default().with_max_bytes(5);
    let endless = StaleConfig::default().with_max_age(Duration::from_hours(25));
    let empty = StaleConfig::default().with_max_age(Duration::ZERO);
    for (config, field) in [
        (small, "max_answer_bytes"),
        (endless, "max_age"),
        (empty, "max_age"),
    ] {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}
