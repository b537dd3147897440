//! What an update of a list of endpoints costs, and what a request pays to read it, beside what one would write by hand
//! and beside tower's balancer.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Ready;
use std::future::ready;
use std::hint::black_box;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use futures_core::Stream;
use mesh_discovery::Belief;
use mesh_discovery::Endpoint;
use mesh_discovery::Endpoints;
use mesh_discovery::Ledger;
use mesh_discovery::Publisher;
use mesh_discovery::Status;
use mesh_resilience::balance::Ask;
use mesh_resilience::balance::BalanceConfig;
use mesh_resilience::balance::EndpointState;
use mesh_resilience::balance::Picker;
use mesh_resilience::random::Random as _;
use mesh_resilience::random::SplitMix64;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::Load;
use tower_service::Service;

fn main() {
    let mut criterion = benches::criterion();
    update(&mut criterion);
    pick(&mut criterion);
    read_under_updates(&mut criterion);
    criterion.final_summary();
}

const SIZES: [u16; 2] = [1_000, 10_000];

/// As a registry gives it; one endpoint of all has another weight in each of two versions.
fn answer(count: u16, version: u16) -> Vec<Endpoint> {
    let endpoint = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let mut endpoint = Endpoint::new(format!("10.0.{high}.{low}").parse().unwrap(), 50051);
        endpoint.id = format!("orders-{n:05}");
        endpoint.zone = Some("zone-a".into());
        endpoint.version = Some("1.2.3".into());
        endpoint.tags = vec!["primary".into()];
        if n == count / 2 {
            endpoint.weight = NonZeroU16::new(1 + version % 2).unwrap();
        }
        endpoint
    };
    (0..count).map(endpoint).collect()
}

/// One of all endpoints changed.
fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discovery_update");
    for count in SIZES {
        let answers = [answer(count, 0), answer(count, 1)];
        let lists = answers.clone().map(|list| Endpoints::new(list, 0).unwrap());
        let nothing = |_: &Endpoint| Status::Unknown;

        let (mut ledger, mut now, mut turn) = (Ledger::new(&Belief::default()), benches::now(), 0);
        group.bench_function(BenchmarkId::new("ledger", count), |b| {
            b.iter(|| {
                turn = 1 - turn;
                now += Duration::from_secs(1);
                ledger.found(now, black_box(&lists[turn]), &nothing);
                ledger.endpoints().revision()
            });
        });
        let publisher = Publisher::new(Endpoints::pending());
        let next = || {
            let mut turn = 0;
            move || {
                turn = 1 - turn;
                answers[turn].clone()
            }
        };
        group.bench_function(BenchmarkId::new("check_ledger_publish", count), |b| {
            let from_registry = |list| {
                now += Duration::from_secs(1);
                let (list, _refused) = Endpoints::sift(list, 0).unwrap();
                ledger.found(now, &list, &nothing);
                publisher.publish(ledger.endpoints().clone())
            };
            b.iter_batched(next.clone()(), from_registry, BatchSize::LargeInput);
        });
        let list = RwLock::new(Vec::new());
        group.bench_function(BenchmarkId::new("rwlock_vec", count), |b| {
            let replace = |new: Vec<Endpoint>| {
                let new: Vec<_> = new.into_iter().map(Arc::new).collect();
                *list.write().unwrap() = new;
            };
            b.iter_batched(next.clone()(), replace, BatchSize::LargeInput);
        });
        let (mut balance, changes) = balance(count);
        group.bench_function(BenchmarkId::new("tower_p2c_told_the_change", count), |b| {
            b.iter(|| {
                changes.insert(count / 2);
                poll_ready(&mut balance);
            });
        });
    }
    group.finish();
}

/// From the list as it is now to one endpoint.
fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discovery_pick");
    for count in SIZES {
        let (now, random) = (benches::now(), SplitMix64::new(42));
        let list = Endpoints::new(answer(count, 0), 0).unwrap();
        let publisher = Publisher::new(list.clone());
        let mut watch = publisher.watch();
        let states: Vec<_> = (0..count)
            .map(|_| Arc::new(EndpointState::new(now)))
            .collect();
        let picker = Picker::new(&BalanceConfig::default(), &states, now);
        group.bench_function(BenchmarkId::new("watch_and_picker", count), |b| {
            b.iter(|| {
                let index = picker.pick(&states, &Ask::new(now, &random)).unwrap();
                (states[index].begin(), Arc::clone(&watch.latest()[index]))
            });
        });
        let locked = RwLock::new(list.to_vec());
        group.bench_function(BenchmarkId::new("rwlock_vec_at_random", count), |b| {
            b.iter(|| {
                let list = locked.read().unwrap();
                let index = usize::try_from(random.next_u64() % list.len() as u64).unwrap();
                Arc::clone(&list[index])
            });
        });
        let (mut balance, _changes) = balance(count);
        group.bench_function(BenchmarkId::new("tower_p2c", count), |b| {
            b.iter(|| {
                poll_ready(&mut balance);
                balance.call(())
            });
        });
    }
    group.finish();
}

/// Reads while another thread publishes without a pause.
fn read_under_updates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discovery_read_under_updates");
    for count in SIZES {
        let lists = [0, 1].map(|version| Endpoints::new(answer(count, version), 0).unwrap());
        let publisher = Publisher::new(lists[0].clone());
        let mut watch = publisher.watch();
        let publish = |turn: usize| {
            publisher.publish(lists[turn % 2].clone());
        };
        while_updating(publish, || {
            group.bench_function(BenchmarkId::new("watch_latest", count), |b| {
                b.iter(|| watch.latest().len());
            });
            let shared = publisher.watch();
            group.bench_function(BenchmarkId::new("watch_current", count), |b| {
                b.iter(|| shared.current().len());
            });
        });
        let locked = RwLock::new(lists[0].to_vec());
        let replace = |turn: usize| {
            let list = lists[turn % 2].to_vec();
            *locked.write().unwrap() = list;
        };
        while_updating(replace, || {
            group.bench_function(BenchmarkId::new("rwlock_vec", count), |b| {
                b.iter(|| locked.read().unwrap().len());
            });
        });
    }
    group.finish();
}

fn while_updating(update: impl Fn(usize) + Sync, measure: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !is_over.load(Ordering::Relaxed) {
                turn += 1;
                update(turn);
            }
        });
        measure();
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Tower's balancer over services that are always ready.
fn balance(count: u16) -> (Balance<Changes, ()>, Changes) {
    let changes = Changes::default();
    for key in 0..count {
        changes.insert(key);
    }
    let mut balance = Balance::new(changes.clone());
    poll_ready(&mut balance);
    (balance, changes)
}

fn poll_ready(balance: &mut Balance<Changes, ()>) {
    let ready = balance.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))), "all are ready");
}

/// What has changed, one by one: tower is told, and does not compare lists.
#[derive(Clone, Default)]
struct Changes(Arc<Mutex<VecDeque<u16>>>);

impl Changes {
    fn insert(&self, key: u16) {
        self.0.lock().unwrap().push_back(key);
    }
}

impl Stream for Changes {
    type Item = Result<Change<u16, Always>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.lock().unwrap().pop_front() {
            Some(key) => Poll::Ready(Some(Ok(Change::Insert(key, Always)))),
            None => Poll::Pending,
        }
    }
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

impl Load for Always {
    type Metric = u32;

    fn load(&self) -> u32 {
        0
    }
}
