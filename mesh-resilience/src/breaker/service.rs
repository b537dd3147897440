//! The breaker around a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Breaker, BreakerOpen, Permit, State};
use crate::classify::Classify;
use crate::error::BoxError;

/// Refuses calls with [`BreakerOpen`] while its breaker is open.
#[derive(Clone, Debug)]
pub struct BreakerLayer<C> {
    breaker: Breaker,
    classifier: C,
}

impl<C> BreakerLayer<C> {
    /// Guards services with `breaker`, which counts what `classifier` says of their answers.
    pub const fn new(breaker: Breaker, classifier: C) -> Self {
        Self {
            breaker,
            classifier,
        }
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = BreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService {
            inner,
            breaker: self.breaker.clone(),
            classifier: self.classifier.clone(),
            refuses: false,
        }
    }
}

/// The service made by [`BreakerLayer`].
#[derive(Debug)]
pub struct BreakerService<S, C> {
    inner: S,
    breaker: Breaker,
    classifier: C,
    /// The breaker was open when readiness was asked for, so the service below was not asked.
    refuses: bool,
}

impl<S: Clone, C: Clone> Clone for BreakerService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breaker: self.breaker.clone(),
            classifier: self.classifier.clone(),
            // Readiness, and so its absence, is not shared between clones.
            refuses: false,
        }
    }
}

impl<S, C, Req> Service<Req> for BreakerService<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // An open breaker answers at once, also when the service below is stuck.
        self.refuses = !self.breaker.is_closed() && self.breaker.state(now()) == State::Open;
        if self.refuses {
            return Poll::Ready(Ok(()));
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if std::mem::take(&mut self.refuses) {
            let refusal = self.breaker.refuse(now());
            return ResponseFuture {
                state: CallState::Refused { refusal },
            };
        }
        let state = match self.breaker.admit(now) {
            Ok(permit) => CallState::Running {
                inner: self.inner.call(request),
                permit: Some(permit),
                classifier: self.classifier.clone(),
            },
            Err(refusal) => CallState::Refused { refusal },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The answer of a [`BreakerService`].
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: CallState<F, C>,
    }
}

pin_project! {
    #[project = CallStateProj]
    enum CallState<F, C> {
        Running {
            #[pin]
            inner: F,
            permit: Option<Permit>,
            classifier: C,
        },
        Refused { refusal: BreakerOpen },
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<Res>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            CallStateProj::Refused { refusal } => Poll::Ready(Err((*refusal).into())),
            CallStateProj::Running {
                inner,
                permit,
                classifier,
            } => {
                let result = ready!(inner.poll(cx)).map_err(Into::into);
                if let Some(permit) = permit.take() {
                    permit.settle(classifier.classify(result.as_ref()).outcome, now);
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
