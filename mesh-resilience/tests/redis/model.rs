//! The script itself against the reference, on random traces and a clock of the test's.

use std::num::NonZeroU32;
use std::time::Duration;

use mesh_resilience::limit::Bucket;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Verdict;
use mesh_resilience::limit::Window;
use mesh_resilience::random::Random;
use mesh_resilience::random::SplitMix64;

use crate::reference::Reference;
use crate::support::redis::Redis;

/// The script with a clock that the test sets: the last two arguments, which the windows leave over.
fn script() -> String {
    let script = include_str!("../../src/limit/redis/check.lua");
    let clock = "local clock = redis.call('TIME')";
    assert_eq!(script.matches(clock).count(), 1);
    script.replace(clock, "local clock = { ARGV[#ARGV - 1], ARGV[#ARGV] }")
}

fn number(random: &SplitMix64, most: usize) -> u32 {
    u32::try_from(1 + random.below(most)).unwrap()
}

fn limits(random: &SplitMix64) -> LimitConfig {
    let window = |most: usize, longest: usize| {
        let calls = NonZeroU32::new(number(random, most)).unwrap();
        Window::new(
            calls,
            Duration::from_millis(100 + u64::from(number(random, longest))),
        )
    };
    let mut config =
        LimitConfig::default().with_windows(vec![window(40, 2_000), window(700, 30_000)]);
    if random.below(2) == 0 {
        let rate = NonZeroU32::new(number(random, 300)).unwrap();
        let burst = NonZeroU32::new(number(random, 100)).unwrap();
        config = config.with_bucket(Bucket::new(rate, burst));
        if random.below(4) == 0 {
            config.windows.clear();
        }
    }
    config
}

/// What `RedisStore` gives the script, said a second time.
fn arguments(config: &LimitConfig) -> Vec<u128> {
    let bucket = config.bucket.as_ref();
    let mut all = bucket.map_or(vec![0, 1, 0], |bucket| {
        vec![
            bucket.rate.get().into(),
            bucket.period.as_micros(),
            bucket.burst.get().into(),
        ]
    });
    for window in &config.windows {
        let (calls, period) = (
            u128::from(window.max_requests.get()),
            window.period.as_micros(),
        );
        let group = calls / 100 + 1;
        all.extend([calls, group, calls / group, period, period.div_ceil(2_000)]);
    }
    all
}

/// Steps of a trace: when, in microseconds, and what each costs.
fn steps(random: &SplitMix64) -> Vec<(u64, u32)> {
    let mut now = 1_700_000_000_000_000;
    let mut all = Vec::new();
    for _ in 0..60 {
        now += match random.below(8) {
            0 => u64::from(number(random, 40_000_000)),
            1 => 0,
            _ => u64::from(number(random, 30_000)),
        };
        for _ in 0..number(random, 4) {
            let cost = if random.below(4) == 0 {
                number(random, 30)
            } else {
                1
            };
            all.push((now, cost));
        }
    }
    all
}

async fn trace(connection: &mut redis::aio::MultiplexedConnection, script: &str, seed: u64) {
    let random = SplitMix64::new(seed);
    let config = limits(&random);
    let steps = steps(&random);
    let arguments: Vec<String> = arguments(&config).iter().map(u128::to_string).collect();
    let mut pipe = redis::pipe();
    pipe.cmd("DEL").arg("k").ignore();
    for (micros, cost) in &steps {
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        let call = pipe
            .cmd("EVALSHA")
            .arg(script)
            .arg(1)
            .arg("k")
            .arg(cost)
            .arg(&arguments);
        call.arg(seconds).arg(rest);
    }
    let answers: Vec<[u64; 5]> = pipe.query_async(connection).await.unwrap();
    // A bucket of whole microseconds loses less than one for each call in it.
    let mut reference = Reference::new(&config, 1_000);
    assert_eq!(answers.len(), steps.len());
    for ((micros, cost), [allowed, limit, remaining, reset, retry]) in steps.iter().zip(answers) {
        let verdict = Verdict::new(
            allowed == 1,
            (
                u32::try_from(limit).unwrap(),
                u32::try_from(remaining).unwrap(),
            ),
            (Duration::from_micros(reset), Duration::from_micros(retry)),
        );
        reference.judge(micros * 1_000, *cost, &verdict);
    }
}

// threat 47
#[tokio::test]
async fn the_script_keeps_every_promise_over_random_traces() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Redis::start(dir.path()) else {
        return;
    };
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let load: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(script())
        .query_async(&mut connection)
        .await
        .unwrap();
    // `MESH_TRACES` of them, where somebody has the time; each has some 150 calls.
    let traces = std::env::var("MESH_TRACES").map_or(200, |text| text.parse().unwrap());
    for seed in 0..traces {
        trace(&mut connection, &load, seed).await;
    }
}
