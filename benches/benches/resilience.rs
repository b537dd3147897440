//! What the resilience patterns add to a call that succeeds, each alone and as the stack of outbound calls.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::future::Future;
use std::future::Ready;
use std::future::ready;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use criterion::BenchmarkId;
use criterion::Criterion;
use mesh_resilience::BoxError;
use mesh_resilience::balance::Ask;
use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::balance::Picker;
use mesh_resilience::balance::Policy;
use mesh_resilience::breaker::Breaker;
use mesh_resilience::breaker::BreakerConfig;
use mesh_resilience::breaker::BreakerLayer;
use mesh_resilience::bulkhead::Bulkhead;
use mesh_resilience::bulkhead::BulkheadConfig;
use mesh_resilience::bulkhead::BulkheadLayer;
use mesh_resilience::classify::ErrorClassifier;
use mesh_resilience::classify::Outcome;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Limiter;
use mesh_resilience::limit::Window;
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
use tower_layer::Layer;
use tower_service::Service;

fn main() {
    let mut criterion = benches::criterion();
    breaker(&mut criterion);
    limiter(&mut criterion);
    balancer(&mut criterion);
    layers(&mut criterion);
    criterion.final_summary();
}

fn breaker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("breaker");
    let now = now();
    let closed = Breaker::new(BreakerConfig::default()).unwrap();
    group.bench_function("closed", |b| {
        b.iter(|| {
            closed
                .try_acquire(black_box(now))
                .unwrap()
                .record(Outcome::Success, now);
        });
    });
    let open = Breaker::new(BreakerConfig::default()).unwrap();
    while let Ok(permit) = open.try_acquire(now) {
        permit.record(Outcome::Failure, now);
    }
    group.bench_function("open", |b| {
        b.iter(|| open.try_acquire(black_box(now)).is_err());
    });
    group.bench_function("state", |b| b.iter(|| closed.state(black_box(now))));
    group.finish();
}

fn limiter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limiter");
    // Two windows, as the default has them.
    let limiter = |max_requests: u32| {
        let window = |period| Window::new(NonZeroU32::new(max_requests).unwrap(), period);
        let windows = vec![
            window(Duration::from_mins(1)),
            window(Duration::from_hours(1)),
        ];
        Limiter::new(&LimitConfig::default().with_windows(windows)).unwrap()
    };
    // A call a millisecond: less than is allowed, so that every check passes however many there are.
    let (wide, mut now) = (limiter(6_000_000), now());
    let mut tick = move || {
        now += Duration::from_millis(1);
        now
    };
    group.bench_function("allowed", |b| {
        b.iter(|| assert!(wide.check(black_box(CALLER), tick()).allowed));
    });
    let callers: Vec<_> = (0..10_000)
        .map(|number| format!("spiffe://example.org/ns/shop/sa/caller-{number}"))
        .collect();
    let mut turn = callers.iter().cycle();
    group.bench_function("allowed_of_10000_callers", |b| {
        b.iter(|| assert!(wide.check(turn.next().unwrap(), tick()).allowed));
    });
    let (narrow, now) = (limiter(1), tick());
    while narrow.check(CALLER, now).allowed {}
    group.bench_function("refused", |b| {
        b.iter(|| assert!(!narrow.check(black_box(CALLER), now).allowed));
    });
    group.finish();
}

fn balancer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balancer");
    let (now, random) = (now(), SplitMix64::new(42));
    for count in [1, 3, 100] {
        let endpoints: Vec<_> = (0..count)
            .map(|_| Arc::new(EndpointState::new(now)))
            .collect();
        for policy in [Policy::LeastRequest, Policy::RoundRobin] {
            let config = BalanceConfig::default().with_policy(policy);
            let picker = Picker::new(&config, &endpoints, now);
            group.bench_function(BenchmarkId::new(format!("{policy:?}"), count), |b| {
                b.iter(|| {
                    let index = picker
                        .pick(black_box(&endpoints), &Ask::new(now, &random))
                        .unwrap();
                    // Counts as in flight until it is dropped, as a call does.
                    endpoints[index].begin()
                });
            });
        }
    }
    group.finish();
}

/// Services whose answer is there at once, so that all that is measured is the layers.
fn layers(criterion: &mut Criterion) {
    // Timers want a runtime, though none is waited for here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let mut group = criterion.benchmark_group("layer");

    let retry = || {
        let budget = Budget::new(BudgetConfig::default()).unwrap();
        RetryLayer::new(RetryConfig::default(), budget, ErrorClassifier::new()).unwrap()
    };
    let breaker = || {
        BreakerLayer::new(
            Breaker::new(BreakerConfig::default()).unwrap(),
            ErrorClassifier::new(),
        )
    };
    let bulkhead = || BulkheadLayer::new(Bulkhead::new(&BulkheadConfig::default()));
    let total = TimeoutLayer::total(Duration::from_secs(30)).unwrap();
    let within = TimeoutLayer::within_deadline(Duration::from_secs(30)).unwrap();

    group.bench_function("none", |b| b.iter(|| call(&mut Echo)));
    let mut service = retry().layer(Echo);
    group.bench_function("retry", |b| b.iter(|| call(&mut service)));
    let mut service = breaker().layer(Echo);
    group.bench_function("breaker", |b| b.iter(|| call(&mut service)));
    let mut service = bulkhead().layer(Echo);
    group.bench_function("bulkhead", |b| b.iter(|| call(&mut service)));
    let mut service = total.layer(Echo);
    group.bench_function("timeout", |b| b.iter(|| call(&mut service)));

    // The order of mesh-node's outbound stack; it clones the stack for each call too.
    let stack = total.layer(retry().layer(breaker().layer(within.layer(bulkhead().layer(Echo)))));
    group.bench_function("all", |b| b.iter(|| call(&mut stack.clone())));
    group.finish();
}

/// One call, whose answer must be there without waiting.
fn call<S>(service: &mut S) -> Bytes
where
    S: Service<Call, Response = Bytes>,
    S::Error: Into<BoxError>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        service.poll_ready(&mut context).is_ready(),
        "nothing holds a call back"
    );
    let call = Call {
        body: Bytes::from_static(b"which orders?"),
        deadline: None,
    };
    let answer = pin!(service.call(black_box(call)));
    match answer.poll(&mut context) {
        Poll::Ready(answer) => answer.map_err(Into::into).unwrap(),
        Poll::Pending => unreachable!("the answer is there at once"),
    }
}

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

struct Call {
    body: Bytes,
    deadline: Option<Deadline>,
}

impl Replay for Call {
    fn try_replay(&self) -> Option<Self> {
        Some(Self {
            body: self.body.clone(),
            deadline: self.deadline,
        })
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

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

const CALLER: &str = "spiffe://example.org/ns/shop/sa/user-service";
