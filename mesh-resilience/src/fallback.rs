//! Fallback: something else where a service gave no good answer.
//!
//! ```text
//!   call ──▶ the layers below ──▶ a good answer, or the caller's own mistake ──▶ passed on
//!                   │
//!                   │ an error, or an answer that its classifier calls a failure
//!                   ▼
//!     FIXED   an answer made here             (Fixed, or any closure)
//!     STALE   the last good answer to it      (stale)
//!     OTHER   what another service says       (other)
//!                   │
//!                   └─▶ none of them has one: what was there is passed on
//! ```
//!
//! It is the outermost of the layers: what is below has given up. Several go around each other; the innermost is asked
//! first.
//!
//! A result is *wanting*, and only then is there a fallback, when its classifier calls it a
//! [`Failure`](Outcome::Failure), be it an error or an answer (HTTP 503), or when it is an error that says nothing of the
//! service ([`Unknown`](Outcome::Unknown): refused by a layer here, such as an open breaker). Mistakes of the caller are
//! told to the caller. A closure that is a [`Recover`] sees every error, and no answer.
//!
//! - An answer that is the same for all: [`Fixed`].
//! - The last good answer, for reads of which an old one is better than none: [`stale`].
//! - Another service that can answer, such as the same in another region: [`other`]. Never for a call that may have been
//!   processed and is not idempotent.
//!
//! None of them is right for a call that must take effect, such as a payment: there an error is the better answer.
//!
//! ```
//! use mesh_resilience::BoxError;
//! use mesh_resilience::classify::ErrorClassifier;
//! use mesh_resilience::fallback::{FallbackLayer, Fixed};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let recommended = ServiceBuilder::new()
//!     .layer(FallbackLayer::new(Fixed::new(|| vec!["bestseller"], ErrorClassifier::new())))
//!     .service(service_fn(|_user: u32| async { Err::<Vec<&str>, BoxError>("down".into()) }));
//! assert_eq!(recommended.oneshot(7).await?, ["bestseller"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Sources
//!
//! - RFC 5861 section 4 (`stale-if-error`), RFC 9111 (what may be kept, `Age`), for [`stale`].
//! - RFC 9110 section 9.2.2 (which methods are idempotent), for [`other`].

mod fixed;
pub mod other;
pub mod stale;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::classify::{Classified, Outcome};
use crate::error::BoxError;

pub use self::fixed::Fixed;

/// Turns an error into an answer or another error, and an answer into another.
///
/// Closures `Fn(BoxError) -> Result<Res, BoxError>` implement it.
pub trait Recover<Res> {
    /// Answers in place of the service that failed with `error`.
    ///
    /// # Errors
    ///
    /// Gives the error back when there is no answer for it.
    fn recover(&self, error: BoxError) -> Result<Res, BoxError>;

    /// Answers in place of the service that gave `answer`. Default: that answer.
    fn replace(&self, answer: Res) -> Res {
        answer
    }
}

impl<F, Res> Recover<Res> for F
where
    F: Fn(BoxError) -> Result<Res, BoxError>,
{
    fn recover(&self, error: BoxError) -> Result<Res, BoxError> {
        self(error)
    }
}

/// Answers with a [`Recover`]. Outermost of the layers: what is below has given up.
#[derive(Clone, Copy, Debug)]
pub struct FallbackLayer<R> {
    recover: R,
}

impl<R> FallbackLayer<R> {
    /// Answers with `recover` what it has a better answer for.
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
        Poll::Ready(match result {
            Ok(answer) => Ok(this.recover.replace(answer)),
            Err(error) => this.recover.recover(error.into()),
        })
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Returns whether something else is better than a result that was classified so.
fn is_wanting(is_error: bool, classified: &Classified) -> bool {
    match classified.outcome {
        Outcome::Failure => true,
        Outcome::Unknown => is_error,
        Outcome::Success | Outcome::CallerError => false,
    }
}
