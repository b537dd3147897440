//! A call that succeeds, through each layer and through what one would otherwise take: one list for its time and for what it
//! allocates, so that both are measured of the same.

use std::future::Future;
use std::future::Ready;
use std::future::ready;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use failsafe::futures::CircuitBreaker as _;
use mesh_resilience::BoxError;
use mesh_resilience::balance::Ask;
use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::balance::InFlight;
use mesh_resilience::balance::Picker;
use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::BreakerConfig;
use mesh_resilience::breaker::BreakerLayer;
use mesh_resilience::breaker::SlowCalls;
use mesh_resilience::breaker::SuccessRate;
use mesh_resilience::bulkhead::Bulkhead;
use mesh_resilience::bulkhead::BulkheadConfig;
use mesh_resilience::bulkhead::BulkheadLayer;
use mesh_resilience::classify::ErrorClassifier;
use mesh_resilience::limit::Bucket;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::LimitLayer;
use mesh_resilience::limit::Limiter;
use mesh_resilience::random::SplitMix64;
use mesh_resilience::retry::Budget;
use mesh_resilience::retry::BudgetConfig;
use mesh_resilience::retry::Replay;
use mesh_resilience::retry::RetryConfig;
use mesh_resilience::retry::RetryLayer;
use mesh_resilience::timeout::Deadline;
use mesh_resilience::timeout::HasDeadline;
use mesh_resilience::timeout::SetDeadline;
use mesh_resilience::timeout::TimeoutLayer;
use tower::retry::backoff::ExponentialBackoff;
use tower::retry::backoff::ExponentialBackoffMaker;
use tower::retry::backoff::MakeBackoff as _;
use tower::retry::budget::Budget as _;
use tower::retry::budget::TpsBudget;
use tower_layer::Layer;
use tower_service::Service;

/// Makes one call.
pub(crate) type OneCall = Box<dyn FnMut()>;

/// Who makes calls through what.
pub(crate) fn all() -> Vec<(&'static str, &'static str, OneCall)> {
    let mut all: Vec<(&str, &str, OneCall)> = vec![("none", "bare", of(Echo))];
    let mut add = |pattern, name, call| all.push((pattern, name, call));

    add(
        "breaker",
        "mesh",
        of(breaker(BreakerConfig::default()).layer(Echo)),
    );
    let watching = BreakerConfig::default()
        .with_success_rate(SuccessRate::default())
        .with_slow_calls(SlowCalls::default());
    add(
        "breaker",
        "mesh, rate and slow calls",
        of(breaker(watching).layer(Echo)),
    );
    let theirs = tower_resilience::circuitbreaker::CircuitBreakerLayer::builder();
    let theirs = theirs.consecutive_failures(5).build().unwrap();
    add("breaker", "tower-resilience", of(theirs.layer_fn(Echo)));
    let theirs = failsafe::Config::new().build();
    add(
        "breaker",
        "failsafe",
        Box::new(move || {
            let answer = theirs.call(Echo.call(message()));
            assert!(at_once(answer).is_ok(), "it is closed");
        }),
    );

    let bulkhead = BulkheadLayer::new(Bulkhead::new(&BulkheadConfig::default()));
    add("bulkhead", "mesh", of(bulkhead.layer(Echo)));
    let theirs = tower::limit::ConcurrencyLimit::new(Echo, 100);
    add("bulkhead", "tower", of(theirs));
    let theirs = tower_resilience::bulkhead::BulkheadLayer::builder();
    let theirs = theirs.max_concurrent_calls(100).build().unwrap();
    add("bulkhead", "tower-resilience", of(theirs.layer(Echo)));

    add(
        "timeout",
        "mesh",
        of(TimeoutLayer::new(TIME).unwrap().layer(Echo)),
    );
    add(
        "timeout",
        "mesh, total",
        of(TimeoutLayer::total(TIME).unwrap().layer(Echo)),
    );
    add(
        "timeout",
        "tower",
        of(tower::timeout::Timeout::new(Echo, TIME)),
    );
    add(
        "timeout",
        "tokio",
        Box::new(|| {
            let answer = tokio::time::timeout(TIME, Echo.call(message()));
            assert!(at_once(answer).is_ok(), "it is there at once");
        }),
    );

    add("retry", "mesh", of(retry().layer(Echo)));
    add(
        "retry",
        "tower",
        of(tower::retry::Retry::new(TowerPolicy::new(), Echo)),
    );
    add(
        "retry",
        "backon",
        Box::new(|| {
            use backon::Retryable as _;
            let answer = (|| Echo.call(message())).retry(backon::ExponentialBuilder::default());
            assert!(at_once(answer.into_future()).is_ok(), "it succeeds");
        }),
    );

    add("stack", "mesh", stack());
    all
}

/// As mesh-node's outbound stack: deadline, retry, breaker, a time for each attempt, bulkhead, limiter, and one of 100
/// endpoints; cloned for each call, as it is there.
fn stack() -> OneCall {
    let now = benches::now();
    let rate = Bucket::new(NonZeroU32::new(1_000_000).unwrap(), NonZeroU32::MAX);
    let config = LimitConfig::default().with_windows(Vec::new());
    let limiter = Limiter::new(&config.with_bucket(rate)).unwrap();
    let endpoints: Vec<_> = (0..100)
        .map(|_| Arc::new(EndpointState::new(now)))
        .collect();
    let pick = Pick {
        picker: Arc::new(Picker::new(&BalanceConfig::default(), &endpoints, now)),
        endpoints: endpoints.into(),
        random: Arc::new(SplitMix64::new(42)),
    };
    let limit = LimitLayer::new(Arc::new(limiter), |_: &Call| CALLER);
    let bulkhead = BulkheadLayer::new(Bulkhead::new(&BulkheadConfig::default()));
    let attempt = TimeoutLayer::within_deadline(TIME).unwrap();
    let attempt = attempt.layer(bulkhead.layer(limit.layer(pick)));
    let attempt = breaker(BreakerConfig::default()).layer(attempt);
    let stack = TimeoutLayer::total(TIME)
        .unwrap()
        .layer(retry().layer(attempt));
    Box::new(move || call(&mut stack.clone()))
}

fn breaker(config: BreakerConfig) -> BreakerLayer<ErrorClassifier> {
    BreakerLayer::new(Breaker::new(config).unwrap(), ErrorClassifier::new())
}

fn retry() -> RetryLayer<ErrorClassifier> {
    let budget = Budget::new(BudgetConfig::default()).unwrap();
    RetryLayer::new(RetryConfig::default(), budget, ErrorClassifier::new()).unwrap()
}

fn of<S>(mut service: S) -> OneCall
where
    S: Service<Call, Response = Bytes> + 'static,
{
    Box::new(move || call(&mut service))
}

/// One call, whose answer must be there without waiting.
fn call<S: Service<Call, Response = Bytes>>(service: &mut S) {
    let mut context = Context::from_waker(Waker::noop());
    let is_ready = service.poll_ready(&mut context).is_ready();
    assert!(is_ready, "nothing holds a call back");
    assert!(at_once(service.call(message())).is_ok(), "it succeeds");
}

fn at_once<F: Future>(answer: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(answer).poll(&mut context) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("the answer is there at once"),
    }
}

fn message() -> Call {
    black_box(Call {
        body: Bytes::from_static(b"which orders?"),
        deadline: None,
    })
}

/// Answers at once, so that all that is measured is the layers.
#[derive(Clone)]
struct Echo;

impl Service<Call> for Echo {
    type Response = Bytes;
    type Error = BoxError;
    type Future = Ready<Result<Bytes, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        ready(Ok(call.body))
    }
}

/// Counts a call at one of many endpoints for as long as it runs.
#[derive(Clone)]
struct Pick {
    picker: Arc<Picker>,
    endpoints: Arc<[Arc<EndpointState>]>,
    random: Arc<SplitMix64>,
}

struct Picked {
    answer: Ready<Result<Bytes, BoxError>>,
    /// Counts the call until it is dropped.
    _in_flight: InFlight,
}

impl Service<Call> for Pick {
    type Response = Bytes;
    type Error = BoxError;
    type Future = Picked;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let now = benches::now();
        let picked = self
            .picker
            .pick(&self.endpoints, &Ask::new(now, &*self.random));
        Picked {
            answer: Echo.call(call),
            _in_flight: self.endpoints[picked.unwrap()].begin(),
        }
    }
}

impl Future for Picked {
    type Output = Result<Bytes, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context)
    }
}

#[derive(Clone)]
struct Call {
    body: Bytes,
    deadline: Option<Deadline>,
}

impl Replay for Call {
    fn try_replay(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn is_idempotent(&self) -> bool {
        true
    }
}

impl HasDeadline for Call {
    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }
}

impl SetDeadline for Call {
    fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = Some(deadline);
    }
}

/// What tower has no ready policy for, made of the parts that it has: three attempts, backoff and budget.
#[derive(Clone)]
struct TowerPolicy {
    budget: Arc<TpsBudget>,
    backoff: ExponentialBackoff,
    left: u32,
}

impl TowerPolicy {
    fn new() -> Self {
        let random = tower::util::rng::HasherRng::default();
        let maker = ExponentialBackoffMaker::new(TIME, 2 * TIME, 1.0, random);
        Self {
            budget: Arc::new(TpsBudget::default()),
            backoff: maker.unwrap().make_backoff(),
            left: 2,
        }
    }
}

impl tower::retry::Policy<Call, Bytes, BoxError> for TowerPolicy {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        _: &mut Call,
        result: &mut Result<Bytes, BoxError>,
    ) -> Option<Self::Future> {
        use tower::retry::backoff::Backoff as _;
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        let may = self.left > 0 && self.budget.withdraw();
        self.left = self.left.saturating_sub(1);
        may.then(|| self.backoff.next_backoff())
    }

    fn clone_request(&mut self, call: &Call) -> Option<Call> {
        Some(call.clone())
    }
}

const TIME: Duration = Duration::from_secs(30);
const CALLER: &str = "spiffe://example.org/ns/shop/sa/user-service";
