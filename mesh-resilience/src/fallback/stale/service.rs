//! The memory around a service.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Keep, Stale};
use crate::classify::{Classify, Outcome, Retryable};
use crate::error::BoxError;
use crate::fallback::is_wanting;

/// Gives the last good answer where the service gave none.
#[derive(Debug)]
pub struct StaleLayer<P, K, A, C> {
    stale: Stale<P, K, A>,
    classifier: C,
}

impl<P, K, A, C> StaleLayer<P, K, A, C> {
    /// Keeps answers in `stale`, and gives one where `classifier` finds the result wanting.
    pub const fn new(stale: Stale<P, K, A>, classifier: C) -> Self {
        Self { stale, classifier }
    }
}

impl<P, K, A, C: Clone> Clone for StaleLayer<P, K, A, C> {
    fn clone(&self) -> Self {
        Self {
            stale: self.stale.clone(),
            classifier: self.classifier.clone(),
        }
    }
}

impl<S, P, K, A, C: Clone> Layer<S> for StaleLayer<P, K, A, C> {
    type Service = StaleService<S, P, K, A, C>;

    fn layer(&self, inner: S) -> Self::Service {
        StaleService {
            inner,
            stale: self.stale.clone(),
            classifier: self.classifier.clone(),
        }
    }
}

/// The service made by [`StaleLayer`].
#[derive(Debug)]
pub struct StaleService<S, P, K, A, C> {
    inner: S,
    stale: Stale<P, K, A>,
    classifier: C,
}

impl<S: Clone, P, K, A, C: Clone> Clone for StaleService<S, P, K, A, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            stale: self.stale.clone(),
            classifier: self.classifier.clone(),
        }
    }
}

impl<S, P, C, Req> Service<Req> for StaleService<S, P, P::Key, S::Response, C>
where
    S: Service<Req>,
    S::Response: Clone,
    S::Error: Into<BoxError>,
    P: Keep<Req, S::Response>,
    C: Classify<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, Req, P, P::Key, S::Response, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture {
            key: self.stale.shared.keep.key(&request),
            inner: self.inner.call(request),
            stale: self.stale.clone(),
            classifier: self.classifier.clone(),
            request: PhantomData,
        }
    }
}

pin_project! {
    /// The answer of a [`StaleService`].
    pub struct ResponseFuture<F, Req, P, K, A, C> {
        #[pin]
        inner: F,
        key: Option<K>,
        stale: Stale<P, K, A>,
        classifier: C,
        request: PhantomData<fn(Req)>,
    }
}

impl<F, E, Req, P, A, C> Future for ResponseFuture<F, Req, P, P::Key, A, C>
where
    F: Future<Output = Result<A, E>>,
    E: Into<BoxError>,
    P: Keep<Req, A>,
    A: Clone,
    P::Key: Clone + Eq + Hash,
    C: Classify<A>,
{
    type Output = Result<A, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx)).map_err(Into::into);
        let Some(key) = this.key.take() else {
            return Poll::Ready(result);
        };
        let now = tokio::time::Instant::now().into_std();
        let classified = this.classifier.classify(result.as_ref());
        if is_wanting(result.is_err(), &classified) {
            let old = this.stale.give::<Req>(&key, now);
            return Poll::Ready(old.map_or(result, Ok));
        }
        let arrival = this.stale.arrived(now);
        match &result {
            Ok(answer) if classified.outcome == Outcome::Success => {
                this.stale.keep::<Req>(key, answer, arrival);
            }
            Ok(_)
                if classified.outcome == Outcome::CallerError
                    && classified.retryable == Retryable::Never =>
            {
                this.stale.forget(&key, arrival);
            }
            _ => {}
        }
        Poll::Ready(result)
    }
}

impl<F, Req, P, K, A, C> fmt::Debug for ResponseFuture<F, Req, P, K, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
