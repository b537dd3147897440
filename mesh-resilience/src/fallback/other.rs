//! Another service that is called when the first gave no good answer.
//!
//! A *copy* of the request ([`Replay`]) is kept while the first service is called. It goes to the other one, once, when
//!
//! - the first result is [wanting](super), and
//! - a second execution can do no harm: the request is idempotent, or the first service provably did not process it
//!   ([`Retryable::is_safe`](crate::classify::Retryable::is_safe), as for a retry, or a refusal by a layer here, an open
//!   breaker too), and
//! - the deadline is not over.
//!
//! Whether the request is idempotent is asked before the first call: that one service remembers the call and would not
//! run it twice is nothing that another service knows. A copy that says only afterwards that it is idempotent belongs to
//! such a call: an attempt may have run, whatever the last one says, so it goes nowhere else. A retry layer belongs below this one. The copy is marked as a
//! further [`Attempt`](crate::replay::Attempt), so that nobody further down repeats it.
//!
//! The answer is then what the other service says, its error too: what the first one gave is dropped before the other is
//! called, with the permit or the connection that it may hold.
//!
//! ```
//! use mesh_resilience::BoxError;
//! use mesh_resilience::classify::HttpClassifier;
//! use mesh_resilience::fallback::other::OtherLayer;
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let elsewhere = service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new("from the other region")) });
//! let orders = ServiceBuilder::new()
//!     .layer(OtherLayer::new(elsewhere, HttpClassifier::new()))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::builder().status(503).body("down")?)
//!     }));
//! let answer = orders.oneshot(Request::new(())).await?;
//! assert_eq!(*answer.body(), "from the other region");
//! # Ok(())
//! # }
//! ```
//!
//! *Cancel safety*: a dropped response future drops whichever call is under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::is_wanting;
use crate::classify::Classify;
use crate::error::{BoxError, is_refusal};
use crate::replay::Replay;

/// Calls another service where the first gave no good answer.
#[derive(Clone, Copy, Debug)]
pub struct OtherLayer<O, C> {
    other: O,
    classifier: C,
}

impl<O, C> OtherLayer<O, C> {
    /// Calls `other` where `classifier` finds the first result wanting.
    pub const fn new(other: O, classifier: C) -> Self {
        Self { other, classifier }
    }
}

impl<S, O: Clone, C: Clone> Layer<S> for OtherLayer<O, C> {
    type Service = Other<S, O, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Other {
            inner,
            second: self.other.clone(),
            classifier: self.classifier.clone(),
        }
    }
}

/// The service made by [`OtherLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Other<S, O, C> {
    inner: S,
    second: O,
    classifier: C,
}

impl<S, O, C, Req> Service<Req> for Other<S, O, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    O: Service<Req, Response = S::Response> + Clone,
    O::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    Req: Replay,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, O, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let spare = request.try_replay();
        let is_idempotent = request.is_idempotent();
        ResponseFuture {
            state: State::First {
                inner: self.inner.call(request),
            },
            spare: spare.map(|copy| (self.second.clone(), copy)),
            is_idempotent,
            classifier: self.classifier.clone(),
        }
    }
}

pin_project! {
    /// The answer of an [`Other`].
    pub struct ResponseFuture<F, O, Req, C>
    where
        O: Service<Req>,
    {
        #[pin]
        state: State<F, O::Future>,
        spare: Option<(O, Req)>,
        is_idempotent: bool,
        classifier: C,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, G> {
        First {
            #[pin]
            inner: F,
        },
        Readying,
        Second {
            #[pin]
            inner: G,
        },
    }
}

impl<F, O, Req, C, Res, E> Future for ResponseFuture<F, O, Req, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    O: Service<Req, Response = Res>,
    O::Error: Into<BoxError>,
    C: Classify<Res>,
    Req: Replay,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::First { inner } => {
                    let result = ready!(inner.poll(cx)).map_err(Into::into);
                    let classified = this.classifier.classify(result.as_ref());
                    let is_refused = result.as_ref().is_err_and(is_refusal);
                    let is_called = is_wanting(result.is_err(), &classified)
                        && this.spare.as_ref().is_some_and(|(_, copy)| {
                            let is_untouched = is_refused || classified.retryable.is_safe(false);
                            let is_bound = !*this.is_idempotent && copy.is_idempotent();
                            (*this.is_idempotent || (is_untouched && !is_bound)) && is_in_time(copy)
                        });
                    if !is_called {
                        return Poll::Ready(result);
                    }
                    // Frees what the failed call holds before the other one begins.
                    drop(result);
                    this.state.set(State::Readying);
                }
                StateProj::Readying => {
                    let Some((service, _)) = this.spare.as_mut() else {
                        return Poll::Pending;
                    };
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let Some((mut service, mut request)) = this.spare.take() else {
                        return Poll::Pending;
                    };
                    let attempt = request.attempt().next();
                    request.begin_attempt(attempt);
                    let inner = service.call(request);
                    this.state.set(State::Second { inner });
                }
                StateProj::Second { inner } => return inner.poll(cx).map_err(Into::into),
            }
        }
    }
}

fn is_in_time<Req: Replay>(request: &Req) -> bool {
    let now = tokio::time::Instant::now().into_std();
    request
        .deadline()
        .is_none_or(|deadline| !deadline.is_past(now))
}

impl<F, O: Service<Req>, Req, C> fmt::Debug for ResponseFuture<F, O, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("is_idempotent", &self.is_idempotent)
            .finish_non_exhaustive()
    }
}
