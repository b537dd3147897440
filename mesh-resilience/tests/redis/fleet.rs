//! Several nodes, one limit.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use mesh_resilience::limit::Bucket;
use mesh_resilience::limit::LimitConfig;
use mesh_resilience::limit::Window;
use mesh_resilience::limit::redis::RedisConfig;
use mesh_resilience::limit::redis::RedisStore;
use mesh_resilience::limit::shared::DecidedBy;
use mesh_resilience::limit::shared::Observe;
use mesh_resilience::limit::shared::SharedConfig;
use mesh_resilience::limit::shared::SharedLimiter;
use mesh_resilience::random::Random;
use mesh_resilience::random::SplitMix64;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::redis::Redis;

/// One of several nodes that share a limit.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) limiter: Arc<SharedLimiter<RedisStore>>,
    upkeep: tokio::task::JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(redis: RedisConfig, config: &SharedConfig) -> Self {
        Self::start_watched(redis, config, None).await
    }

    pub(crate) async fn start_watched(
        redis: RedisConfig,
        config: &SharedConfig,
        observer: Option<Arc<dyn Observe>>,
    ) -> Self {
        let random: Arc<dyn Random> = Arc::new(SplitMix64::from_entropy());
        let (store, driver) = RedisStore::new(redis, &config.limit, Arc::clone(&random)).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test may start tasks")]
        let upkeep = tokio::spawn(driver.run());
        store.first_attempt().await;
        let limiter = SharedLimiter::new(store, config, random, observer).unwrap();
        Self {
            limiter: Arc::new(limiter),
            upkeep,
        }
    }

    /// Makes calls of `key` one after another, and returns those that were admitted, with their time and who decided.
    pub(crate) async fn call(&self, key: &str, calls: u32) -> Vec<(Instant, DecidedBy)> {
        let mut admitted = Vec::new();
        for _ in 0..calls {
            let before = Instant::now();
            if let Ok((verdict, by)) = self.limiter.check(key, NonZeroU32::MIN).await
                && verdict.allowed
            {
                admitted.push((before, by));
            }
        }
        admitted
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

pub(crate) fn window(calls: u32, period: Duration) -> Window {
    Window::new(NonZeroU32::new(calls).unwrap(), period)
}

/// A limit behind which a slow machine is no fault of the store.
pub(crate) fn patient(windows: Vec<Window>) -> SharedConfig {
    SharedConfig::new(LimitConfig::default().with_windows(windows))
        .with_timeout(Duration::from_secs(5))
}

// threat 47
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_nodes_admit_together_what_one_may() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Redis::start(dir.path()) else {
        return;
    };
    let mut config = patient(vec![
        window(500, Duration::from_mins(10)),
        window(900, Duration::from_hours(1)),
    ]);
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(Arc::new(
            Node::start(RedisConfig::new(server.url()), &config).await,
        ));
    }
    let mut calls = JoinSet::new();
    for task in 0..32_usize {
        let node = Arc::clone(&nodes[task % nodes.len()]);
        calls.spawn(async move { node.call("ann", 50).await });
    }
    let admitted = calls.join_all().await.concat();
    assert!(admitted.iter().all(|(_, by)| *by == DecidedBy::Store));
    // All within the ten minutes: 99 % at the least, and not one too many.
    assert!((495..=500).contains(&admitted.len()), "{}", admitted.len());
    assert!(!nodes[0].call("bob", 1).await.is_empty(), "keys are apart");

    // The same with a bucket, whose refill is less than a call in the time that this takes.
    let bucket = Bucket::new(NonZeroU32::MIN, NonZeroU32::new(300).unwrap());
    config.limit = LimitConfig::default()
        .with_windows(vec![])
        .with_bucket(bucket.with_period(Duration::from_hours(1)));
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let node = Node::start(RedisConfig::new(server.url()), &config).await;
        calls.spawn(async move { node.call("ann", 150).await });
    }
    assert_eq!(calls.join_all().await.concat().len(), 300);
}

// threat 47
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_stretch_of_time_sees_too_many_calls_of_four_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Redis::start(dir.path()) else {
        return;
    };
    let period = Duration::from_millis(400);
    let config = patient(vec![window(40, period)]);
    let mut calls = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3);
    for _ in 0..4 {
        let node = Node::start(RedisConfig::new(server.url()), &config).await;
        calls.spawn(async move {
            let mut all = Vec::new();
            while Instant::now() < until {
                for (before, _) in node.call("ann", 1).await {
                    all.push((before, Instant::now()));
                }
            }
            all
        });
    }
    let mut all = calls.join_all().await.concat();
    all.sort();
    assert!(all.len() >= 200, "{} in seven periods", all.len());
    // Each was counted somewhere between the two times that are known of it.
    for (index, (first, _)) in all.iter().enumerate() {
        let within = all[index..]
            .iter()
            .filter(|(_, after)| *after < *first + period);
        let within = within.count();
        assert!(within <= 40, "{within} calls in one period");
    }
}

#[tokio::test]
async fn what_a_call_is_told_counts_down_and_a_record_goes_when_it_says_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Redis::start(dir.path()) else {
        return;
    };
    let config = patient(vec![
        window(2, Duration::from_millis(300)),
        window(9, Duration::from_secs(1)),
    ]);
    let node = Node::start(RedisConfig::new(server.url()), &config).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let (verdict, _) = node.limiter.check("ann", NonZeroU32::MIN).await.unwrap();
        told.push((verdict.allowed, verdict.limit, verdict.remaining));
        assert!(verdict.reset_after <= Duration::from_millis(300));
    }
    assert_eq!(told, [(true, 2, 1), (true, 2, 0), (false, 2, 0)]);
    let (verdict, _) = node
        .limiter
        .check("ann", NonZeroU32::new(3).unwrap())
        .await
        .unwrap();
    assert!(!verdict.allowed && verdict.retry_after == Duration::from_millis(300));
    tokio::time::sleep(verdict.retry_after + Duration::from_millis(5)).await;
    assert_eq!(node.call("ann", 1).await.len(), 1);
    let names = server.ask(&["KEYS", "*"]);
    assert_eq!(names.as_array().map(Vec::len), Some(1), "{names}");
    let name = names[0].as_str().unwrap();
    assert!(name.starts_with("{mesh:limit}:") && !name.contains("ann"));
    let left = server.ask(&["PTTL", name]);
    assert!((1..=1_002).contains(&left.as_i64().unwrap()), "{left}");
}
