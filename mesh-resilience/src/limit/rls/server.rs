//! The rate limit service itself, as a tower service for HTTP/2 requests.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use http_body::Body as HttpBody;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::server::NamedService;
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::Judge;
use super::messages::HEALTH_CHECK;
use super::messages::HealthCheckRequest;
use super::messages::HealthCheckResponse;
use super::messages::RateLimitRequest;
use super::messages::RateLimitResponse;
use super::messages::SHOULD_RATE_LIMIT;
use super::question::MAX_MESSAGE;
use super::question::Question;
use crate::error::BoxError;

/// Answers `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`, and gRPC's health check, by a [`Judge`].
///
/// It takes requests of any HTTP/2 server. It does not know who asks: whoever reaches it can use up the limits of others.
#[derive(Clone)]
pub struct RlsServer {
    judge: Arc<Judge>,
}

impl RlsServer {
    /// A service that answers as `judge` does.
    pub const fn new(judge: Arc<Judge>) -> Self {
        Self { judge }
    }
}

/// For routers. What they find by this name is the service alone; the health check has another.
impl NamedService for RlsServer {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl fmt::Debug for RlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RlsServer").finish_non_exhaustive()
    }
}

impl<B> Service<http::Request<B>> for RlsServer
where
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError> + Send,
    B::Data: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        let judge = Arc::clone(&self.judge);
        ResponseFuture(Box::pin(async move {
            match request.uri().path() {
                SHOULD_RATE_LIMIT => {
                    let codec = ProstCodec::<RateLimitResponse, RateLimitRequest>::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                    grpc.unary(ShouldRateLimit(judge), request).await
                }
                HEALTH_CHECK => {
                    let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
                    grpc.unary(Health, request).await
                }
                _ => Status::unimplemented("this is a rate limit service").into_http(),
            }
        }))
    }
}

/// The answer of an [`RlsServer`].
pub struct ResponseFuture(Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

struct ShouldRateLimit(Arc<Judge>);

impl Service<Request<RateLimitRequest>> for ShouldRateLimit {
    type Response = Response<RateLimitResponse>;
    type Error = Status;
    type Future = std::future::Ready<Result<Response<RateLimitResponse>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RateLimitRequest>) -> Self::Future {
        std::future::ready(respond(&self.0, request.into_inner()))
    }
}

fn respond(
    judge: &Judge,
    request: RateLimitRequest,
) -> Result<Response<RateLimitResponse>, Status> {
    let question = Question::from_message(request);
    let question = question.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let now = tokio::time::Instant::now().into_std();
    let answer = judge.judge(&question, now);
    let answer = answer.map_err(|error| Status::resource_exhausted(error.to_string()))?;
    Ok(Response::new(answer.into_message()))
}

struct Health;

impl Service<Request<HealthCheckRequest>> for Health {
    type Response = Response<HealthCheckResponse>;
    type Error = Status;
    type Future = std::future::Ready<Result<Response<HealthCheckResponse>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        let service = request.into_inner().service;
        // The health protocol: a server as a whole has no name. The second is how envoyproxy/ratelimit calls itself.
        std::future::ready(if matches!(&*service, "" | RlsServer::NAME | "ratelimit") {
            let status = HealthCheckResponse::SERVING;
            Ok(Response::new(HealthCheckResponse { status }))
        } else {
            Err(Status::not_found("there is no such service here"))
        })
    }
}
