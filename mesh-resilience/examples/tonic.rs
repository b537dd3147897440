//! A gRPC client made of tonic and layers: the channel has a breaker, a bulkhead and a deadline that the server learns of;
//! calls are repeated above it, as messages.
//!
//! ```text
//! cargo run -p mesh-resilience --features breaker,bulkhead,http,retry,timeout --example tonic
//! ```
//!
//! The server is tonic's own health service, here with layers that make it fail.

#![expect(clippy::print_stdout, reason = "it shows what happens")]
#![expect(clippy::disallowed_methods, reason = "it starts a server of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request};
use mesh_resilience::breaker::{Breaker, BreakerConfig, BreakerLayer, BreakerOpen};
use mesh_resilience::bulkhead::{Bulkhead, BulkheadConfig, BulkheadLayer};
use mesh_resilience::classify::{Classified, HttpClassifier, Outcome};
use mesh_resilience::deadline::{Deadline, HasDeadline};
use mesh_resilience::retry::{Budget, BudgetConfig, Replay, RetryConfig, RetryLayer};
use mesh_resilience::timeout::TimeoutLayer;
use mesh_resilience::{BoxError, find_cause, find_cause_in};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::util::MapRequestLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Answer = http::Response<Body>;

/// Tells the server how long the caller waits: `grpc-timeout` of gRPC over HTTP/2, "Requests".
fn tell_timeout(mut request: Request<Body>) -> Request<Body> {
    let now = tokio::time::Instant::now().into_std();
    if let Some(deadline) = HasDeadline::deadline(&request) {
        let millis = deadline.remaining(now).as_millis().min(99_999_999);
        if let Ok(value) = HeaderValue::try_from(format!("{millis}m")) {
            request.headers_mut().insert("grpc-timeout", value);
        }
    }
    request
}

/// The channel with its layers, outermost first.
fn layered(
    channel: Channel,
    breaker: Breaker,
) -> Result<
    impl Service<Request<Body>, Response = Answer, Error = BoxError, Future: Send> + Clone,
    BoxError,
> {
    Ok(ServiceBuilder::new()
        .layer(TimeoutLayer::total(Duration::from_secs(2))?)
        .layer(MapRequestLayer::new(tell_timeout))
        .layer(BreakerLayer::new(breaker, HttpClassifier::new()))
        .layer(BulkheadLayer::new(
            Bulkhead::new(&BulkheadConfig::default()),
        ))
        .service(channel))
}

/// A message that can be sent again: a body that is on its way can't.
#[derive(Clone)]
struct Ask(HealthCheckRequest);

impl Replay for Ask {
    fn try_replay(&self) -> Option<Self> {
        Some(self.clone())
    }

    /// Asking how somebody is changes nothing.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<Deadline> {
        None
    }
}

/// gRPC's own list of codes that may be repeated is in the service config; this is its usual content.
fn judge(result: Result<&i32, &BoxError>) -> Classified {
    let Err(error) = result else {
        return Classified::success();
    };
    // What a layer of the channel refused, before it judges the status that tonic made of it.
    if find_cause::<BreakerOpen>(error).is_some() {
        return Classified::of_error(error);
    }
    match find_cause::<Status>(error).map(Status::code) {
        Some(Code::Unavailable) => Classified::failure(),
        Some(_) => Classified::new(Outcome::Failure),
        None => Classified::of_error(error),
    }
}

/// Runs the example, and tells what happened.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let server = Backend::start().await?;
    let breaker = Breaker::new(BreakerConfig::default())?;
    let channel = Endpoint::from_shared(server.url.clone())?.connect_lazy();
    let client = HealthClient::new(layered(channel, breaker.clone())?);
    let check = service_fn(move |Ask(request): Ask| {
        let mut client = client.clone();
        async move { Ok::<_, BoxError>(client.check(request).await?.into_inner().status) }
    });
    let retries = RetryConfig::default().with_initial_delay(Duration::from_millis(20));
    let budget = Budget::new(BudgetConfig::default())?;
    let mut health = RetryLayer::new(retries, budget, judge)?.layer(check);
    let ask = || Ask(HealthCheckRequest::default());
    let mut story = Vec::new();

    server.fail_next(2);
    let status = health.ready().await?.call(ask()).await?;
    story.push(format!("status {status} after {} attempts", server.calls()));
    story.push(format!("the server was given {}", server.timeout()));

    server.fail_next(u32::MAX);
    let error = loop {
        if let Err(error) = health.ready().await?.call(ask()).await
            && find_cause_in::<BreakerOpen>(&*error).is_some()
        {
            break error;
        }
    };
    let open = find_cause::<BreakerOpen>(&error).map(|_| "the breaker is open");
    story.push(open.unwrap_or("it is no refusal").to_owned());
    Ok(story)
}

/// The health service behind a layer that answers for it when it is to fail.
struct Backend {
    url: String,
    calls: Arc<AtomicU32>,
    failures: Arc<AtomicU32>,
    /// The last `grpc-timeout`, in seconds, rounded up.
    timeout: Arc<AtomicU32>,
}

impl Backend {
    async fn start() -> Result<Self, BoxError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let backend = Self {
            url: format!("http://{}", listener.local_addr()?),
            calls: Arc::default(),
            failures: Arc::default(),
            timeout: Arc::default(),
        };
        let (_, health) = tonic_health::server::health_reporter();
        let (calls, failures) = (Arc::clone(&backend.calls), Arc::clone(&backend.failures));
        let timeout = Arc::clone(&backend.timeout);
        let faults = tonic::service::InterceptorLayer::new(move |request: tonic::Request<()>| {
            calls.fetch_add(1, Ordering::Relaxed);
            let given = request.metadata().get("grpc-timeout");
            let given =
                given.and_then(|given| given.to_str().ok()?.strip_suffix('m')?.parse().ok());
            timeout.store(
                given.map_or(0, |millis: u32| millis.div_ceil(1_000)),
                Ordering::Relaxed,
            );
            let spend = |left: u32| left.checked_sub(1);
            match failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
                Ok(_) => Err(Status::unavailable("not now")),
                Err(_) => Ok(request),
            }
        });
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = Server::builder().layer(faults).add_service(health);
        drop(tokio::task::spawn(server.serve_with_incoming(incoming)));
        Ok(backend)
    }

    fn fail_next(&self, calls: u32) {
        self.failures.store(calls, Ordering::Relaxed);
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn timeout(&self) -> String {
        format!("{} s", self.timeout.load(Ordering::Relaxed))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
