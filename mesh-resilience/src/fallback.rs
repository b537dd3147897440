//! Fallback: an answer of one's own when the service gave none.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::BoxError;

/// Turns an error into an answer, or into another error.
///
/// Closures `Fn(BoxError) -> Result<Res, BoxError>` implement it.
pub trait Recover<Res> {
    /// Answers in place of the service that failed with `error`.
    ///
    /// # Errors
    ///
    /// Gives the error back when there is no answer for it.
    fn recover(&self, error: BoxError) -> Result<Res, BoxError>;
}

impl<F, Res> Recover<Res> for F
where
    F: Fn(BoxError) -> Result<Res, BoxError>,
{
    fn recover(&self, error: BoxError) -> Result<Res, BoxError> {
        self(error)
    }
}

/// Answers errors with a [`Recover`]. Outermost of the layers: what is below has given up.
#[derive(Clone, Copy, Debug)]
pub struct FallbackLayer<R> {
    recover: R,
}

impl<R> FallbackLayer<R> {
    /// Answers errors with `recover`.
    pub const fn new(recover: R) -> Self {
        Self { recover }
    }
}

impl<S, R: Clone> Layer<S> for FallbackLayer<R> {
    type Service = Fallback<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Fallback {
            inner,
            recover: self.recover.clone(),
        }
    }
}

/// The service made by [`FallbackLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Fallback<S, R> {
    inner: S,
    recover: R,
}

impl<S, R, Req> Service<Req> for Fallback<S, R>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    R: Recover<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture {
            inner: self.inner.call(request),
            recover: self.recover.clone(),
        }
    }
}

pin_project! {
    /// The answer of a [`Fallback`].
    pub struct ResponseFuture<F, R> {
        #[pin]
        inner: F,
        recover: R,
    }
}

impl<F, R, Res, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    R: Recover<Res>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        Poll::Ready(result.or_else(|error| this.recover.recover(error.into())))
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
