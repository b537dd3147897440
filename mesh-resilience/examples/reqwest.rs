//! A client made of reqwest and layers: retries with a budget, a circuit breaker, a bulkhead, and time limits.
//!
//! ```text
//! cargo run -p mesh-resilience --features breaker,bulkhead,http,retry,timeout --example reqwest
//! ```
//!
//! It starts a server of its own that fails now and then, and then for good.

#![expect(clippy::print_stdout, reason = "it shows what happens")]
#![expect(clippy::disallowed_methods, reason = "it starts a server of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use mesh_resilience::breaker::{Breaker, BreakerConfig, BreakerLayer, BreakerOpen};
use mesh_resilience::bulkhead::{Bulkhead, BulkheadConfig, BulkheadLayer};
use mesh_resilience::classify::{Classified, Classify, HttpClassifier, Retryable};
use mesh_resilience::retry::{Budget, BudgetConfig, RetryConfig, RetryLayer};
use mesh_resilience::timeout::{DEFAULT_TIMEOUT, TimeoutLayer};
use mesh_resilience::{BoxError, find_cause};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

type Answer = Response<reqwest::Body>;

/// As for any HTTP answer; and where no connection was made nobody can have acted on the request.
fn judge(result: Result<&Answer, &BoxError>) -> Classified {
    let judged = HttpClassifier::new().classify(result);
    let unsent = result.err().and_then(find_cause::<reqwest::Error>);
    if unsent.is_some_and(reqwest::Error::is_connect) {
        judged.with_retryable(Retryable::Always)
    } else {
        judged
    }
}

/// The layers, outermost first.
fn client(
    breaker: Breaker,
) -> Result<impl Service<Request<Bytes>, Response = Answer, Error = BoxError>, BoxError> {
    let http = reqwest::Client::new();
    let send = service_fn(move |request: Request<Bytes>| {
        let http = http.clone();
        async move {
            let request = reqwest::Request::try_from(request)?;
            Ok::<_, BoxError>(Answer::from(http.execute(request).await?))
        }
    });
    let retries = RetryConfig::default().with_initial_delay(Duration::from_millis(20));
    let budget = Budget::new(BudgetConfig::default())?;
    Ok(ServiceBuilder::new()
        .layer(TimeoutLayer::total(DEFAULT_TIMEOUT)?)
        .layer(RetryLayer::new(retries, budget, judge)?)
        .layer(BreakerLayer::new(breaker, judge))
        .layer(BulkheadLayer::new(
            Bulkhead::new(&BulkheadConfig::default()),
        ))
        .layer(TimeoutLayer::within_deadline(Duration::from_secs(5))?)
        .service(send))
}

/// Runs the example, and tells what happened.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let server = Server::start().await?;
    let breaker = Breaker::new(BreakerConfig::default())?;
    let mut orders = client(breaker.clone())?;
    let mut story = Vec::new();

    let order = |id: u32| Request::get(server.url(id)).body(Bytes::new());
    let answer = orders.ready().await?.call(order(7)?).await?;
    let (status, calls) = (answer.status(), server.calls());
    story.push(format!("order 7: {status} after {calls} attempts"));

    server.fail_for_good();
    // The last answer is passed on, until the breaker opens.
    loop {
        match orders.ready().await?.call(order(8)?).await {
            Ok(answer) => story.push(format!("order 8: {}", answer.status())),
            Err(error) => {
                let open = find_cause::<BreakerOpen>(&error).ok_or("it is no refusal")?;
                story.push(
                    format!("order 8: {open}")
                        .split(", try")
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                );
                break;
            }
        }
    }
    let now = tokio::time::Instant::now().into_std();
    let snapshot = breaker.snapshot(now);
    story.push(format!(
        "the breaker is {}, opened {} time",
        snapshot.state, snapshot.opened
    ));
    Ok(story)
}

/// Answers every third call, until it answers none.
struct Server {
    url: String,
    calls: Arc<AtomicU32>,
    is_down: Arc<AtomicBool>,
}

impl Server {
    async fn start() -> Result<Self, BoxError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (calls, is_down) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (counted, down) = (Arc::clone(&calls), Arc::clone(&is_down));
        let answer = move |Path(id): Path<u32>| async move {
            let call = counted.fetch_add(1, Ordering::Relaxed) + 1;
            if down.load(Ordering::Relaxed) || call % 3 != 0 {
                Err(StatusCode::SERVICE_UNAVAILABLE)
            } else {
                Ok(format!("order {id}"))
            }
        };
        let app = Router::new().route("/orders/{id}", get(answer));
        drop(tokio::task::spawn(async {
            axum::serve(listener, app).await
        }));
        Ok(Self {
            url,
            calls,
            is_down,
        })
    }

    fn url(&self, id: u32) -> String {
        format!("{}/orders/{id}", self.url)
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn fail_for_good(&self) {
        self.is_down.store(true, Ordering::Relaxed);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
