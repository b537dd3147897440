//! What layers add to a call that succeeds, beside what one would otherwise take, in the same run; and what each allocates.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::alloc::System;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use criterion::BenchmarkId;
use criterion::Criterion;
use governor::Quota;
use governor::RateLimiter;
use mesh_resilience::limit::Bucket;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Limiter;
use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::Region;
use stats_alloc::StatsAlloc;

#[path = "parts/services.rs"]
mod services;

/// Counts with a few atomic additions, which what allocates pays for: some 5 ns each time.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    // Timers want a runtime, though none is waited for here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let mut criterion = benches::criterion();
    calls(&mut criterion);
    limiters(&mut criterion);
    criterion.final_summary();
}

fn calls(criterion: &mut Criterion) {
    for (pattern, name, mut call) in services::all() {
        let mut group = criterion.benchmark_group(format!("peers/{pattern}"));
        group.bench_function(name, |b| b.iter(&mut call));
        group.finish();
        let region = Region::new(ALLOCATOR);
        for _ in 0..CALLS {
            call();
        }
        let allocated = region.change().allocations;
        #[expect(clippy::print_stdout, reason = "it is a figure of this benchmark")]
        {
            println!("peers/{pattern}/{name} allocates {allocated} times in {CALLS} calls");
        }
    }
}

/// Checks of two threads at once, of one key and of 100,000.
fn limiters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peers/limiter");
    for count in [1_usize, 100_000] {
        let keys: Vec<String> = (0..count)
            .map(|number| format!("spiffe://example.org/ns/shop/sa/caller-{number}"))
            .collect();
        let many = NonZeroU32::new(1_000_000).unwrap();
        let config = LimitConfig::default()
            .with_windows(Vec::new())
            .with_bucket(Bucket::new(many, NonZeroU32::MAX))
            .with_max_keys(NonZeroUsize::new(200_000).unwrap());
        let ours = Limiter::new(&config).unwrap();
        group.bench_function(BenchmarkId::new("mesh", count), |b| {
            b.iter_custom(|checks| {
                two_threads(checks, &keys, |key| ours.check(key, benches::now()).allowed)
            });
        });
        let quota = Quota::per_second(many).allow_burst(NonZeroU32::MAX);
        let theirs = RateLimiter::dashmap(quota);
        group.bench_function(BenchmarkId::new("governor", count), |b| {
            b.iter_custom(|checks| two_threads(checks, &keys, |key| theirs.check_key(key).is_ok()));
        });
    }
    group.finish();
}

/// Returns how long two threads take for `checks` each, so the time of one check while another thread checks too.
fn two_threads(checks: u64, keys: &[String], check: impl Fn(&String) -> bool + Sync) -> Duration {
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for offset in [0, keys.len() / 2] {
            let (start, check) = (&start, &check);
            scope.spawn(move || {
                start.wait();
                let mut turn = keys.iter().cycle().skip(offset);
                for _ in 0..checks {
                    black_box(check(turn.next().unwrap()));
                }
                start.wait();
            });
        }
        start.wait();
        let began = benches::now();
        start.wait();
        began.elapsed()
    })
}

const CALLS: usize = 1_000;
