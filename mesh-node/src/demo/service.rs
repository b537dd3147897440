//! The applications of the demonstration: small plain HTTP services that know nothing of the mesh.
//!
//! Each answers any path with JSON that says what it was asked and, where another service follows, what that one
//! answered. It calls the next one by name through its `http_proxy`, as programs do that have one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_transport::Body;
use mesh_transport::tasks::Tasks;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::client::Call;
use crate::respond::X_REQUEST_ID;

/// One application.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct App {
    /// Name.
    #[arg(long)]
    name: String,
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Service that is asked before this one answers.
    #[arg(long, requires = "http_proxy")]
    next: Option<String>,
    /// Proxy for calls.
    #[arg(long)]
    http_proxy: Option<SocketAddr>,
}

struct Running {
    app: App,
    requests: AtomicU64,
}

impl App {
    /// Serves until the process is stopped.
    pub(crate) async fn run(self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        let tasks = Tasks::new(Handle::current());
        let running = Arc::new(Running {
            app: self,
            requests: AtomicU64::new(0),
        });
        loop {
            let (stream, _) = listener.accept().await?;
            let running = Arc::clone(&running);
            tasks.start(async move {
                let service = service_fn(move |request| {
                    let running = Arc::clone(&running);
                    async move { Ok::<_, Infallible>(running.answer(request).await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "connection ended");
                }
            });
        }
    }
}

impl Running {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if parts.uri.path() == REQUESTS_PATH {
            let seen = self.requests.load(Ordering::Relaxed);
            return page(StatusCode::OK, &json!({ "requests": seen }));
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
            return page(
                StatusCode::PAYLOAD_TOO_LARGE,
                &json!({ "error": "the body is too large" }),
            );
        };
        let text = |name: &str| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let mut answer = json!({ "service": self.app.name });
        if let Some(caller) = text("x-mesh-peer-id") {
            answer["calledBy"] = caller.into();
        }
        let body = body.to_bytes();
        if !body.is_empty() {
            answer["received"] = String::from_utf8_lossy(&body).into();
        }
        let mut status = StatusCode::OK;
        if let (Some(next), Some(proxy)) = (&self.app.next, self.app.http_proxy) {
            let number = parts.uri.path().rsplit('/').next().unwrap_or_default();
            let url = format!("http://{next}/{next}/{number}");
            let (is_success, asked) = ask(&url, proxy, &parts.headers).await;
            answer["asked"] = asked;
            if !is_success {
                status = StatusCode::BAD_GATEWAY;
            }
        }
        page(status, &answer)
    }
}

/// Asks `url` and tells what came back. Passes the request id on, as applications do for their logs.
async fn ask(url: &str, proxy: SocketAddr, headers: &HeaderMap) -> (bool, Value) {
    let mut call = Call::get(url);
    if let Some(id) = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()) {
        call = call.with_id(id);
    }
    match call.send(proxy).await {
        Ok(answer) => {
            let mut told = json!({ "url": url, "status": answer.status });
            let breaker = answer.header("x-circuit-breaker-state");
            if !breaker.is_empty() {
                told["circuitBreaker"] = breaker.into();
            }
            told["answer"] = answer.json();
            (answer.status == 200, told)
        }
        Err(error) => (false, json!({ "url": url, "error": error.to_string() })),
    }
}

fn page(status: StatusCode, answer: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{answer}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// Tells how many requests came, and is not counted itself.
pub(super) const REQUESTS_PATH: &str = "/requests";
const MAX_BODY_BYTES: usize = 64 * 1024;
