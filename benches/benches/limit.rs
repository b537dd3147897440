//! A rate limit's check beside governor's, both by key, alone and on two threads, at one key and at a hundred thousand.
//!
//! Each thread makes its checks at once with the other; what is shown is the time of one check as one thread sees it.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Barrier;
use std::time::Duration;

use criterion::BenchmarkId;
use criterion::Criterion;
use governor::DefaultKeyedRateLimiter;
use governor::Quota;
use governor::RateLimiter;
use mesh_resilience::limit::Bucket;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Limiter;
use mesh_resilience::limit::Window;
use mesh_resilience::random::Random;
use mesh_resilience::random::SplitMix64;

fn main() {
    let mut criterion = benches::criterion();
    checks(&mut criterion);
    criterion.final_summary();
}

fn checks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit_check");
    for (threads, keys) in [(1, 1), (1, 100_000), (2, 1), (2, 100_000)] {
        let id = |name| BenchmarkId::new(name, format!("{threads} threads, {keys} keys"));
        let mut bench = |name, check: &(dyn Fn(usize) -> bool + Sync)| {
            (0..keys).for_each(|key| {
                check(key);
            });
            group.bench_function(id(name), |bencher| {
                bencher.iter_custom(|count| shared(threads, keys, count, check));
            });
        };
        let bucket = buckets();
        bench("bucket", &|key| bucket.check(&key, now()).allowed);
        let windows = windows(100, 10_000);
        bench("windows", &|key| windows.check(&key, now()).allowed);
        let wide = self::windows(6_000_000, 6_000_000);
        bench("windows_admitting", &|key| wide.check(&key, now()).allowed);
        let governor = governor();
        bench("governor", &|key| governor.check_key(&key).is_ok());
    }
    group.finish();
}

/// The time that `threads` take for `count` checks each, side by side.
fn shared(
    threads: usize,
    keys: usize,
    count: u64,
    check: &(dyn Fn(usize) -> bool + Sync),
) -> Duration {
    let together = Barrier::new(threads);
    let run = |thread: usize| {
        let random = SplitMix64::new(thread as u64);
        together.wait();
        let before = now();
        for _ in 0..count {
            // Drawn at one key too, so that both cost as much.
            black_box(check(black_box(random.below(keys))));
        }
        now() - before
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let times = all.into_iter().filter_map(|thread| thread.join().ok());
        times.max().unwrap_or_default()
    })
}

fn buckets() -> Limiter {
    let bucket = Bucket::new(number(1_000_000), number(1_000_000));
    let config = LimitConfig::default().with_windows(Vec::new());
    limiter(&config.with_bucket(bucket))
}

fn windows(first: u32, second: u32) -> Limiter {
    let windows = vec![
        Window::new(number(first), Duration::from_mins(1)),
        Window::new(number(second), Duration::from_hours(1)),
    ];
    limiter(&LimitConfig::default().with_windows(windows))
}

#[expect(clippy::unwrap_used, reason = "the limits are in range")]
fn limiter(config: &LimitConfig) -> Limiter {
    Limiter::new(config).unwrap()
}

fn governor() -> DefaultKeyedRateLimiter<usize> {
    RateLimiter::keyed(Quota::per_second(number(1_000_000)))
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
