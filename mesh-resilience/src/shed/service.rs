//! The limit around a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Overloaded, Permit, Priority, Shed};
use crate::classify::{Classify, Outcome};
use crate::error::BoxError;

/// Says how much a request matters. Closures `Fn(&Req) -> Priority` implement it.
pub trait Prioritize<Req> {
    /// How much `request` matters.
    fn priority(&self, request: &Req) -> Priority;
}

/// All calls matter the same.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct AllNormal;

impl<Req> Prioritize<Req> for AllNormal {
    fn priority(&self, _: &Req) -> Priority {
        Priority::Normal
    }
}

impl<F, Req> Prioritize<Req> for F
where
    F: Fn(&Req) -> Priority,
{
    fn priority(&self, request: &Req) -> Priority {
        self(request)
    }
}

/// Refuses calls with [`Overloaded`] while too many are under way.
#[derive(Clone, Debug)]
pub struct ShedLayer<C, P = AllNormal> {
    shed: Shed,
    classifier: C,
    priority: P,
}

impl<C> ShedLayer<C> {
    /// Guards services with `shed`, which learns from the answers that `classifier` finds good. All calls matter the same.
    pub const fn new(shed: Shed, classifier: C) -> Self {
        Self::by_priority(shed, classifier, AllNormal)
    }
}

impl<C, P> ShedLayer<C, P> {
    /// As [`ShedLayer::new`], and `priority` says how much a request matters.
    pub const fn by_priority(shed: Shed, classifier: C, priority: P) -> Self {
        Self {
            shed,
            classifier,
            priority,
        }
    }
}

impl<S, C: Clone, P: Clone> Layer<S> for ShedLayer<C, P> {
    type Service = ShedService<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        ShedService {
            inner,
            shed: self.shed.clone(),
            classifier: self.classifier.clone(),
            priority: self.priority.clone(),
        }
    }
}

/// The service made by [`ShedLayer`].
#[derive(Clone, Debug)]
pub struct ShedService<S, C, P = AllNormal> {
    inner: S,
    shed: Shed,
    classifier: C,
    priority: P,
}

impl<S, C, P, Req> Service<Req> for ShedService<S, C, P>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    P: Prioritize<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let priority = self.priority.priority(&request);
        let state = match self.shed.try_acquire(priority, now()) {
            Ok(permit) => CallState::Running {
                inner: self.inner.call(request),
                place: Place(Some(permit)),
                classifier: self.classifier.clone(),
            },
            Err(refusal) => CallState::Refused { refusal },
        };
        ResponseFuture { state }
    }
}

/// A permit that knows the time when it is dropped.
struct Place(Option<Permit>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.gave_up(now());
        }
    }
}

pin_project! {
    /// The answer of a [`ShedService`].
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
            place: Place,
            classifier: C,
        },
        Refused { refusal: Overloaded },
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
                place,
                classifier,
            } => {
                let result = ready!(inner.poll(cx)).map_err(Into::into);
                if let Some(permit) = place.0.take() {
                    if classifier.classify(result.as_ref()).outcome == Outcome::Success {
                        permit.answered(now());
                    } else {
                        permit.gave_up(now());
                    }
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
