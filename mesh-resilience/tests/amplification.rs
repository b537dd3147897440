//! What a total outage at the end of a chain of three hops does to the service that is down.
#![cfg(all(feature = "http", feature = "retry"))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use mesh_resilience::BoxError;
use mesh_resilience::classify::{HttpClassifier, RETRY_NEVER, X_MESH_RETRY};
use mesh_resilience::random::SplitMix64;
use mesh_resilience::replay::X_MESH_ATTEMPT;
use mesh_resilience::retry::{Budget, BudgetConfig, RetryConfig, RetryLayer};
use tokio::task::JoinSet;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

type Hop = BoxCloneSyncService<Request<()>, Response<()>, BoxError>;

/// What services pass on of retries.
#[derive(Clone, Copy)]
struct Habits {
    /// Calls carry the attempt of the request that they are made for.
    tells_below: bool,
    /// An answer that fails for a call further down says that it is not to be repeated.
    tells_above: bool,
}

/// Calls `below` with retries.
fn client(below: Hop, seed: u64) -> Hop {
    // Without a reserve, which is for services that are hardly called.
    let budget = Budget::new(BudgetConfig::default().with_reserve(0)).unwrap();
    let layer = RetryLayer::new(RetryConfig::default(), budget, HttpClassifier::new()).unwrap();
    let layer = layer.with_random(Arc::new(SplitMix64::new(seed)));
    BoxCloneSyncService::new(layer.layer(below))
}

/// A service that asks the one below to answer a request, and fails when that does.
fn service(below: Hop, habits: Habits) -> Hop {
    BoxCloneSyncService::new(service_fn(move |request: Request<()>| {
        let below = below.clone();
        async move {
            let mut call = Request::new(());
            if let Some(attempt) = request.headers().get(X_MESH_ATTEMPT)
                && habits.tells_below
            {
                call.headers_mut().insert(X_MESH_ATTEMPT, attempt.clone());
            }
            let answer = below.oneshot(call).await?;
            let mut own = Response::new(());
            *own.status_mut() = answer.status();
            if habits.tells_above && !answer.status().is_success() {
                own.headers_mut().insert(X_MESH_RETRY, RETRY_NEVER);
            }
            Ok(own)
        }
    }))
}

/// The requests that reach the service that is down, for one that is made at the other end of `hops`.
async fn amplification(hops: u64, habits: Habits) -> f64 {
    let reached = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&reached);
    let down = service_fn(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok::<_, BoxError>(answer)
        }
    });
    let mut hop = client(BoxCloneSyncService::new(down), 1);
    for seed in 2..=hops {
        hop = client(service(hop, habits), seed);
    }
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(hop.clone().oneshot(Request::new(())));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 503);
    }
    f64::from(reached.load(Ordering::Relaxed)) / f64::from(CALLS)
}

// Goal R-4.
// threat 45
#[tokio::test(start_paused = true)]
async fn retries_of_three_hops_do_not_multiply_once_they_tell_each_other() {
    let silent = Habits {
        tells_below: false,
        tells_above: false,
    };
    let numbered = Habits {
        tells_below: true,
        ..silent
    };
    let open = Habits {
        tells_above: true,
        ..numbered
    };
    let one_hop = amplification(1, silent).await;
    assert!((1.15..=1.2).contains(&one_hop), "{one_hop}");
    let alone = amplification(3, silent).await;
    assert!((1.6..=1.73).contains(&alone), "{alone}");
    let below = amplification(3, numbered).await;
    assert!(below <= 1.6 && below < alone, "{below}");
    let both = amplification(3, open).await;
    assert!(both <= 1.2, "{both}");
}

const CALLS: u32 = 4_000;
