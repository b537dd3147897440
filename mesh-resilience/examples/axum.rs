//! A server made of axum and layers: a limit for each caller, a bulkhead, a time limit, and an answer for each refusal.
//!
//! ```text
//! cargo run -p mesh-resilience --features bulkhead,http,limit,timeout --example axum
//! ```
//!
//! It calls itself to show what callers see.

#![expect(clippy::print_stdout, reason = "it shows what happens")]
#![expect(clippy::disallowed_methods, reason = "it starts a server of its own")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode};
use mesh_resilience::bulkhead::{Bulkhead, BulkheadConfig, BulkheadFull, BulkheadLayer};
use mesh_resilience::limit::{LimitConfig, LimitLayer, Limiter, Window};
use mesh_resilience::refusal::{Limited, TimedOut};
use mesh_resilience::timeout::TimeoutLayer;
use mesh_resilience::{BoxError, find_cause};
use tower::ServiceBuilder;

/// What a caller sees of what a layer answered in place of the handler.
async fn refusal(error: BoxError) -> Response {
    let (status, wait) = if let Some(limited) = find_cause::<Limited>(&error) {
        (StatusCode::TOO_MANY_REQUESTS, Some(limited.retry_after))
    } else if find_cause::<BulkheadFull>(&error).is_some() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Some(Duration::from_secs(1)),
        )
    } else if find_cause::<TimedOut>(&error).is_some() {
        (StatusCode::GATEWAY_TIMEOUT, None)
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, None)
    };
    let mut response = (status, error.to_string()).into_response();
    if let Some(wait) = wait {
        // Whole seconds, rounded up: who comes too early is refused again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Who calls. A real server takes what the caller has proven, such as its certificate.
fn caller<B>(request: &Request<B>) -> String {
    let name = request.headers().get("x-caller").map(HeaderValue::as_bytes);
    String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
}

fn app(bulkhead: Bulkhead) -> Result<Router, BoxError> {
    let few = NonZeroU32::new(3).ok_or("three")?;
    let windows = vec![Window::new(few, Duration::from_mins(1))];
    let limiter = Arc::new(Limiter::new(&LimitConfig::default().with_windows(windows))?);
    // Outermost first. The limit is per caller, so that one of them can't fill the bulkhead; the time is what a call
    // has once it runs.
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refusal))
        .layer(LimitLayer::new(limiter, caller::<axum::body::Body>))
        .layer(BulkheadLayer::new(bulkhead))
        .layer(TimeoutLayer::new(Duration::from_millis(300))?);
    Ok(Router::new()
        .route("/orders", get(async || "all orders"))
        .route("/report", get(std::future::pending::<()>))
        .layer(layers))
}

/// Runs the example, and tells what happened.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let config = BulkheadConfig::default()
        .with_max_concurrent(NonZeroUsize::MIN)
        .with_max_waiting(0);
    let bulkhead = Bulkhead::new(&config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    let app = app(bulkhead.clone())?;
    drop(tokio::task::spawn(async {
        axum::serve(listener, app).await
    }));

    let http = reqwest::Client::new();
    let call = async |who: &'static str, path: &'static str| {
        let request = http.get(format!("{server}/{path}")).header("x-caller", who);
        let answer = request.send().await?;
        let wait = answer.headers().get(RETRY_AFTER).cloned();
        let wait = wait.map_or(String::new(), |wait| format!(" retry-after {wait:?}"));
        Ok::<_, BoxError>(format!("{who} {path}: {}{wait}", answer.status()))
    };
    let mut story = Vec::new();
    story.push(call("ann", "orders").await?);

    // A report never ends, and has the only place until its time is up.
    let report = call("bob", "report");
    let meanwhile = async {
        while bulkhead.running() == 0 {
            tokio::task::yield_now().await;
        }
        call("ann", "orders").await
    };
    let (late, full) = tokio::join!(report, meanwhile);
    story.extend([full?, late?]);

    story.push(call("ann", "orders").await?);
    let limited = call("ann", "orders").await?;
    story.push(
        limited
            .split(" retry-after")
            .next()
            .unwrap_or_default()
            .to_owned(),
    );
    story.push(call("eve", "orders").await?);
    Ok(story)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
