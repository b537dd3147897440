//! The limiter in front of a service.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Limited, Limiter};
use crate::error::BoxError;

/// Says whose call a request is: a verified identity, or an address that can be trusted.
///
/// Closures `Fn(&Req) -> K` implement it.
pub trait KeyOf<Req> {
    /// What calls are counted by.
    type Key: Hash;

    /// Returns the key of `request`.
    fn key(&self, request: &Req) -> Self::Key;
}

impl<F, Req, K> KeyOf<Req> for F
where
    F: Fn(&Req) -> K,
    K: Hash,
{
    type Key = K;

    fn key(&self, request: &Req) -> K {
        self(request)
    }
}

/// Answers [`Limited`] to callers that exceed their limit.
#[derive(Clone, Debug)]
pub struct LimitLayer<X> {
    limiter: Arc<Limiter>,
    extractor: X,
}

impl<X> LimitLayer<X> {
    /// Limits calls by the key that `extractor` finds in each request.
    pub const fn new(limiter: Arc<Limiter>, extractor: X) -> Self {
        Self { limiter, extractor }
    }
}

impl<S, X: Clone> Layer<S> for LimitLayer<X> {
    type Service = Limit<S, X>;

    fn layer(&self, inner: S) -> Self::Service {
        Limit {
            inner,
            limiter: Arc::clone(&self.limiter),
            extractor: self.extractor.clone(),
        }
    }
}

/// The service made by [`LimitLayer`].
#[derive(Clone, Debug)]
pub struct Limit<S, X> {
    inner: S,
    limiter: Arc<Limiter>,
    extractor: X,
}

impl<S, X, Req> Service<Req> for Limit<S, X>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    X: KeyOf<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let now = tokio::time::Instant::now().into_std();
        let verdict = self.limiter.check(&self.extractor.key(&request), now);
        let state = if verdict.allowed {
            CallState::Running {
                inner: self.inner.call(request),
            }
        } else {
            CallState::Refused {
                refusal: Limited::new(verdict.limit, verdict.reset_after, verdict.retry_after),
            }
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The answer of a [`Limit`].
    pub struct ResponseFuture<F> {
        #[pin]
        state: CallState<F>,
    }
}

pin_project! {
    #[project = CallStateProj]
    enum CallState<F> {
        Running {
            #[pin]
            inner: F,
        },
        Refused { refusal: Limited },
    }
}

impl<F, Res, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            CallStateProj::Running { inner } => inner.poll(cx).map_err(Into::into),
            CallStateProj::Refused { refusal } => Poll::Ready(Err((*refusal).into())),
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
