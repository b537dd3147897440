//! A store that goes away and comes back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mesh_resilience::breaker::BreakerConfig;
use mesh_resilience::limit::redis::RedisConfig;
use mesh_resilience::limit::shared::DecidedBy;
use mesh_resilience::limit::shared::Observe;
use mesh_resilience::limit::shared::SharedConfig;
use mesh_resilience::limit::shared::WhenAway;
use tokio::time::Instant;

use crate::fleet::Node;
use crate::fleet::patient;
use crate::fleet::window;
use crate::support::redis::Redis;

/// Counts what it is told.
#[derive(Debug, Default)]
struct Seen {
    away: AtomicU32,
    back: AtomicU32,
    failed: AtomicU32,
}

impl Observe for Seen {
    fn store_changed(&self, is_away: bool) {
        let counter = if is_away { &self.away } else { &self.back };
        counter.fetch_add(1, Relaxed);
    }

    fn store_failed(&self, _: &mesh_resilience::BoxError) {
        self.failed.fetch_add(1, Relaxed);
    }
}

fn impatient(when_away: WhenAway) -> SharedConfig {
    let breaker = BreakerConfig::default()
        .with_threshold(NonZeroU32::new(3).unwrap())
        .with_open_for(Duration::from_millis(200));
    patient(vec![window(40, Duration::from_hours(1))])
        .with_timeout(Duration::from_millis(300))
        .with_breaker(breaker)
        .with_when_away(when_away)
}

fn quarter() -> WhenAway {
    WhenAway::LocalShare {
        nodes: NonZeroU32::new(4).unwrap(),
    }
}

/// Calls until the store decides again.
async fn until_back(node: &Node) {
    let limit = Instant::now() + Duration::from_secs(10);
    while node.limiter.is_away() {
        assert!(Instant::now() < limit, "the store stays away");
        node.call("nobody", 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn by_share(admitted: &[(Instant, DecidedBy)]) -> usize {
    let own = admitted
        .iter()
        .filter(|(_, by)| *by == DecidedBy::LocalShare);
    own.count()
}

// threat 47
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_store_admits_its_share_and_counts_in_it_what_the_store_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = Redis::start(dir.path()) else {
        return;
    };
    let seen = Arc::new(Seen::default());
    let observer: Arc<dyn Observe> = Arc::<Seen>::clone(&seen);
    let config = RedisConfig::new(server.url());
    let node = Node::start_watched(config, &impatient(quarter()), Some(observer)).await;
    assert_eq!(node.call("ann", 4).await.len(), 4);
    server.kill();
    let away = node.call("ann", 30).await;
    assert_eq!(
        (away.len(), by_share(&away)),
        (6, 6),
        "a quarter of 40, less the 4"
    );
    assert!(node.limiter.is_away());
    assert_eq!((seen.away.load(Relaxed), seen.back.load(Relaxed)), (1, 0));
    assert!(seen.failed.load(Relaxed) >= 3);

    // Empty, as after a failover to nothing: what it admits is what one store admits, and no flapping adds to the share.
    server.start_again();
    until_back(&node).await;
    let again = node.call("ann", 60).await;
    assert_eq!((again.len(), by_share(&again)), (40, 0));
    server.kill();
    assert!(
        node.call("ann", 30).await.is_empty(),
        "its share is used up"
    );
    assert_eq!((seen.away.load(Relaxed), seen.back.load(Relaxed)), (2, 1));
}

// threat 47
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_limit_admits_nothing_without_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = Redis::start(dir.path()) else {
        return;
    };
    let node = Node::start(RedisConfig::new(server.url()), &impatient(WhenAway::Closed)).await;
    assert_eq!(node.call("ann", 4).await.len(), 4);
    server.kill();
    assert!(node.call("ann", 30).await.is_empty());
    let refused = node
        .limiter
        .check("ann", NonZeroU32::MIN)
        .await
        .unwrap_err();
    assert!(refused.retry_after <= Duration::from_secs(1));
    server.start_again();
    until_back(&node).await;
    assert_eq!(node.call("ann", 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stands_still_delays_a_few_calls_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Redis::start(dir.path()) else {
        return;
    };
    let node = Node::start(RedisConfig::new(server.url()), &impatient(quarter())).await;
    assert_eq!(node.call("ann", 1).await.len(), 1);
    server.process().freeze();
    // Three that wait in vain, and then none for as long as the breaker is open.
    for _ in 0..3 {
        assert!(!node.limiter.is_away());
        node.call("bob", 1).await;
    }
    assert!(node.limiter.is_away());
    let before = Instant::now();
    let mut calls = 0;
    while before.elapsed() < Duration::from_millis(100) {
        node.call("bob", 1).await;
        calls += 1;
    }
    assert!(calls > 100, "{calls} calls in a tenth of a second");
    server.process().thaw();
    until_back(&node).await;
    assert_eq!(by_share(&node.call("ann", 1).await), 0);
}
