//! From a list of endpoints to one of them, by each policy; the same by tower's balancer; and what a ring and a table cost
//! to make.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::convert::Infallible;
use std::future::Ready;
use std::future::ready;
use std::hint::black_box;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use criterion::BenchmarkId;
use criterion::Criterion;
use mesh_resilience::balance::Ask;
use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::Endpoint;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::balance::Picker;
use mesh_resilience::balance::Policy;
use mesh_resilience::balance::SlowStart;
use mesh_resilience::balance::ZoneAware;
use mesh_resilience::random::Random;
use mesh_resilience::random::SplitMix64;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::CompleteOnResponse;
use tower::load::Load;
use tower::load::PeakEwma;
use tower::load::PendingRequests;
use tower_service::Service;

fn main() {
    let mut criterion = benches::criterion();
    pick(&mut criterion);
    make(&mut criterion);
    criterion.final_summary();
}

struct Instance {
    state: Arc<EndpointState>,
    key: String,
    zone: &'static str,
}

impl Endpoint for Instance {
    fn state(&self) -> &EndpointState {
        &self.state
    }

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    fn zone(&self) -> Option<&str> {
        Some(self.zone)
    }
}

/// As many endpoints, in three zones, each with a latency.
fn instances(count: usize) -> Vec<Instance> {
    let now = benches::now();
    let decay = BalanceConfig::default().latency_decay;
    let instance = |number: usize| {
        let state = Arc::new(EndpointState::new(now));
        state.observe(Duration::from_millis(5), false, decay, now);
        Instance {
            state,
            key: format!("10.0.{}.{}:8080", number / 256, number % 256),
            zone: ["a", "b", "c"][number % 3],
        }
    };
    (0..count).map(instance).collect()
}

/// Pick, count as in flight, count as over.
fn pick(criterion: &mut Criterion) {
    let plain = |policy| BalanceConfig::default().with_policy(policy);
    let all = plain(Policy::LeastRequest)
        .with_zone_aware(ZoneAware::new("a"))
        .with_slow_start(SlowStart::default());
    let configs = [
        ("least_request", plain(Policy::LeastRequest)),
        ("peak_ewma", plain(Policy::PeakEwma)),
        ("round_robin", plain(Policy::RoundRobin)),
        ("random", plain(Policy::Random)),
        ("ring_hash", plain(Policy::RingHash)),
        ("maglev", plain(Policy::Maglev)),
        ("least_request_zones_and_slow_start", all),
    ];
    let mut group = criterion.benchmark_group("balance_pick");
    for count in SIZES {
        let endpoints = instances(count);
        // Later than any slow start.
        let (now, random) = (benches::now() + Duration::from_mins(1), SplitMix64::new(42));
        for (name, config) in &configs {
            let picker = Picker::new(config, &endpoints, now);
            group.bench_function(BenchmarkId::new(*name, count), |b| {
                b.iter(|| {
                    let ask = Ask::new(now, &random).with_hash(random.next_u64());
                    let index = picker.pick(black_box(&endpoints), &ask).unwrap();
                    endpoints[index].state.begin()
                });
            });
        }
        let pending = || PendingRequests::new(Always, CompleteOnResponse::default());
        tower(&mut group, ("tower_p2c_pending_requests", count), pending);
        let (rtt, decay) = (Duration::from_millis(5), 1e10);
        let ewma = || PeakEwma::new(Always, rtt, decay, CompleteOnResponse::default());
        tower(&mut group, ("tower_p2c_peak_ewma", count), ewma);
    }
    group.finish();
}

/// Tower's balancer, from ready to called.
fn tower<S>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    (name, count): (&str, usize),
    service: impl Fn() -> S,
) where
    S: Service<(), Error = Infallible> + Load,
    S::Metric: std::fmt::Debug,
{
    let services: Vec<S> = (0..count).map(|_| service()).collect();
    let mut balance = Balance::new(ServiceList::new(services));
    group.bench_function(BenchmarkId::new(name, count), |b| {
        b.iter(|| {
            let ready = balance.poll_ready(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(ready, Poll::Ready(Ok(()))), "all are ready");
            balance.call(())
        });
    });
}

/// A picker for a new list.
fn make(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance_make");
    group.sample_size(10);
    for count in SIZES {
        let (now, endpoints) = (benches::now(), instances(count));
        for policy in [Policy::LeastRequest, Policy::RingHash, Policy::Maglev] {
            let config = BalanceConfig::default().with_policy(policy);
            group.bench_function(BenchmarkId::new(policy.as_str(), count), |b| {
                b.iter(|| Picker::new(&config, black_box(&endpoints), now));
            });
        }
    }
    group.finish();
}

/// Answers at once.
#[derive(Debug)]
struct Always;

impl Service<()> for Always {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

const SIZES: [usize; 3] = [10, 1_000, 10_000];
