//! A service behind a check: what the layers have in common.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::answer::{Refusal, ResponseFuture, is_grpc};

/// What is asked before a request goes on.
pub trait Admit {
    /// The request as it may go on, or why not.
    ///
    /// # Errors
    /// What the caller is answered.
    fn admit<B>(&self, request: Request<B>) -> Result<Request<B>, Refusal>;
}

/// A service that sees the requests which `layer` admits.
#[derive(Clone, Debug)]
pub struct Guarded<S, L> {
    inner: S,
    layer: L,
}

impl<S, L> Guarded<S, L> {
    pub(super) fn new(inner: S, layer: L) -> Self {
        Self { inner, layer }
    }
}

impl<S, L, B, R> Service<Request<B>> for Guarded<S, L>
where
    S: Service<Request<B>, Response = Response<R>>,
    L: Admit,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_grpc = is_grpc(request.headers());
        match self.layer.admit(request) {
            Ok(request) => ResponseFuture::passed(self.inner.call(request)),
            Err(refusal) => ResponseFuture::refused(refusal.into_response(is_grpc)),
        }
    }
}
