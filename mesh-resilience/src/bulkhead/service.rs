//! The bulkhead around a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Acquire, Bulkhead, Permit};
use crate::error::BoxError;

/// Decides how long a response keeps its permit.
///
/// Closures `Fn(Permit, Res) -> Out` implement it, for instance one that wraps the body together with the permit.
pub trait HoldPermit<Res> {
    /// What the response becomes.
    type Response;

    /// Takes over the permit of the call that `response` answers; the place is free once the permit is dropped.
    fn hold(&self, permit: Permit, response: Res) -> Self::Response;
}

/// Gives the permit back as soon as the response is there.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseOnResponse;

impl<Res> HoldPermit<Res> for ReleaseOnResponse {
    type Response = Res;

    fn hold(&self, permit: Permit, response: Res) -> Res {
        drop(permit);
        response
    }
}

impl<F, Res, Out> HoldPermit<Res> for F
where
    F: Fn(Permit, Res) -> Out,
{
    type Response = Out;

    fn hold(&self, permit: Permit, response: Res) -> Out {
        self(permit, response)
    }
}

/// Lets calls through as its [`Bulkhead`] has places; answers [`BulkheadFull`](super::BulkheadFull) to the rest.
#[derive(Clone, Debug)]
pub struct BulkheadLayer<H = ReleaseOnResponse> {
    bulkhead: Bulkhead,
    hold: H,
}

impl BulkheadLayer {
    /// Guards services with `bulkhead`; a permit is held until the response future resolves.
    pub const fn new(bulkhead: Bulkhead) -> Self {
        Self {
            bulkhead,
            hold: ReleaseOnResponse,
        }
    }
}

impl<H> BulkheadLayer<H> {
    /// Guards services with `bulkhead`; `hold` decides how long each permit is held.
    pub const fn holding(bulkhead: Bulkhead, hold: H) -> Self {
        Self { bulkhead, hold }
    }
}

impl<S, H: Clone> Layer<S> for BulkheadLayer<H> {
    type Service = BulkheadService<S, H>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService {
            inner,
            bulkhead: self.bulkhead.clone(),
            hold: self.hold.clone(),
        }
    }
}

/// The service made by [`BulkheadLayer`].
#[derive(Clone, Debug)]
pub struct BulkheadService<S, H = ReleaseOnResponse> {
    inner: S,
    bulkhead: Bulkhead,
    hold: H,
}

impl<S, H, Req> Service<Req> for BulkheadService<S, H>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    H: HoldPermit<S::Response> + Clone,
{
    type Response = H::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, H>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let hold = self.hold.clone();
        let state = match self.bulkhead.take_free() {
            Some(permit) => CallState::Running {
                inner: self.inner.call(request),
                permit: Some(permit),
            },
            None => {
                // The service that was made ready goes with the waiting call; its clone is made ready anew.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                CallState::Waiting {
                    acquire: self.bulkhead.acquire(),
                    call: Some((ready, request)),
                }
            }
        };
        ResponseFuture { state, hold }
    }
}

pin_project! {
    /// The answer of a [`BulkheadService`].
    pub struct ResponseFuture<S, Req, H>
    where
        S: Service<Req>,
    {
        #[pin]
        state: CallState<S, Req>,
        hold: H,
    }
}

pin_project! {
    #[project = CallStateProj]
    enum CallState<S, Req>
    where
        S: Service<Req>,
    {
        Waiting {
            #[pin]
            acquire: Acquire,
            call: Option<(S, Req)>,
        },
        Running {
            #[pin]
            inner: S::Future,
            permit: Option<Permit>,
        },
        Done,
    }
}

impl<S, Req, H> Future for ResponseFuture<S, Req, H>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    H: HoldPermit<S::Response>,
{
    type Output = Result<H::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                CallStateProj::Waiting { acquire, call } => {
                    let permit = ready!(acquire.poll(cx))?;
                    let Some((mut service, request)) = call.take() else {
                        return Poll::Pending;
                    };
                    let inner = service.call(request);
                    this.state.set(CallState::Running {
                        inner,
                        permit: Some(permit),
                    });
                }
                CallStateProj::Running { inner, permit } => {
                    let result = ready!(inner.poll(cx));
                    let permit = permit.take();
                    // Ends the call before the permit, so that what it holds is free first.
                    this.state.set(CallState::Done);
                    let (response, permit) = match (result, permit) {
                        (Ok(response), Some(permit)) => (response, permit),
                        (Err(error), _) => return Poll::Ready(Err(error.into())),
                        (Ok(_), None) => return Poll::Pending,
                    };
                    return Poll::Ready(Ok(this.hold.hold(permit, response)));
                }
                CallStateProj::Done => return Poll::Pending,
            }
        }
    }
}

impl<S: Service<Req>, Req, H> fmt::Debug for ResponseFuture<S, Req, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
