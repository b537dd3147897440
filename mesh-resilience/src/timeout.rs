//! Bounding how long a call takes: one limit a call, and one deadline over all its attempts.
//!
//! Three forms of [`TimeoutLayer`], by what they do with the [`Deadline`] a request carries:
//!
//! | constructor | limit | the request's deadline |
//! |---|---|---|
//! | [`TimeoutLayer::new`] | its own | not looked at |
//! | [`TimeoutLayer::within_deadline`] | the earlier of its own and the deadline | read ([`HasDeadline`]) |
//! | [`TimeoutLayer::total`] | the same | set to the limit, if that is earlier ([`SetDeadline`]) |
//!
//! So `total(30 s)` above the retry layer and `within_deadline(10 s)` below it give every attempt ten seconds, and all of
//! them together thirty.
//!
//! *Cancel safety*: when time is up the call below is dropped as soon as the response future is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{BoxError, ConfigError};

pub use crate::deadline::{Deadline, HasDeadline, SetDeadline};
pub use crate::refusal::TimedOut;

/// How long a call may take unless told otherwise: 30 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How a timeout treats the deadline of a request. Implemented by [`PerCall`], [`WithinDeadline`] and [`Total`].
pub trait Bound<Req> {
    /// Returns how long `request`, started `now`, may take under a limit of `timeout`.
    fn bound(&self, request: &mut Req, timeout: Duration, now: Instant) -> Duration;
}

/// The limit alone counts.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct PerCall;

/// The limit counts, and the request's deadline where that is earlier.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct WithinDeadline;

/// As [`WithinDeadline`], and the request carries the result on as its deadline.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct Total;

impl<Req> Bound<Req> for PerCall {
    fn bound(&self, _: &mut Req, timeout: Duration, _: Instant) -> Duration {
        timeout
    }
}

impl<Req: HasDeadline> Bound<Req> for WithinDeadline {
    fn bound(&self, request: &mut Req, timeout: Duration, now: Instant) -> Duration {
        request
            .deadline()
            .map_or(timeout, |deadline| deadline.remaining(now).min(timeout))
    }
}

impl<Req: SetDeadline> Bound<Req> for Total {
    fn bound(&self, request: &mut Req, timeout: Duration, now: Instant) -> Duration {
        let own = Deadline::after(now, timeout);
        let deadline = request
            .deadline()
            .map_or(own, |deadline| deadline.earlier(own));
        request.set_deadline(deadline);
        deadline.remaining(now)
    }
}

/// Answers [`TimedOut`] for a call that takes too long.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer<B = PerCall> {
    timeout: Duration,
    bound: B,
}

impl TimeoutLayer {
    /// Gives each call `timeout`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZeroDuration`] when no call could ever succeed.
    pub fn new(timeout: Duration) -> Result<Self, ConfigError> {
        Self::with_bound(timeout, PerCall)
    }
}

impl TimeoutLayer<WithinDeadline> {
    /// Gives each call `timeout`, or what is left of its deadline if that is less.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZeroDuration`] when no call could ever succeed.
    pub fn within_deadline(timeout: Duration) -> Result<Self, ConfigError> {
        Self::with_bound(timeout, WithinDeadline)
    }
}

impl TimeoutLayer<Total> {
    /// Gives each call `timeout` for all its attempts together, by setting its deadline; an earlier one stays.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZeroDuration`] when no call could ever succeed.
    pub fn total(timeout: Duration) -> Result<Self, ConfigError> {
        Self::with_bound(timeout, Total)
    }
}

impl<B> TimeoutLayer<B> {
    fn with_bound(timeout: Duration, bound: B) -> Result<Self, ConfigError> {
        ConfigError::check_duration("timeout", timeout)?;
        Ok(Self { timeout, bound })
    }
}

impl<S, B: Clone> Layer<S> for TimeoutLayer<B> {
    type Service = Timeout<S, B>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout {
            inner,
            limit: self.timeout,
            bound: self.bound.clone(),
        }
    }
}

/// The service made by [`TimeoutLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Timeout<S, B = PerCall> {
    inner: S,
    limit: Duration,
    bound: B,
}

impl<S, B, Req> Service<Req> for Timeout<S, B>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    B: Bound<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let now = tokio::time::Instant::now();
        let after = self.bound.bound(&mut request, self.limit, now.into_std());
        // A request whose time is up is not sent: nobody waits for the answer.
        let inner = (!after.is_zero()).then(|| self.inner.call(request));
        ResponseFuture {
            inner,
            // Not `sleep`, which would read the clock again.
            sleep: tokio::time::sleep_until(until(now, after)),
            after,
        }
    }
}

/// The end of a time from `now`; one too long to represent ends in some thirty years.
fn until(now: tokio::time::Instant, after: Duration) -> tokio::time::Instant {
    now.checked_add(after)
        .unwrap_or_else(|| Deadline::after(now.into_std(), after).instant().into())
}

pin_project! {
    /// The answer of a [`Timeout`].
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        #[pin]
        sleep: Sleep,
        after: Duration,
    }
}

impl<F, Res, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(Err(TimedOut::new(*this.after).into()));
        };
        // The answer first: one that is there at the last moment counts, and the timer is not armed for one that
        // is there at once.
        if let Poll::Ready(result) = inner.poll(cx) {
            return Poll::Ready(result.map_err(Into::into));
        }
        if this.sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Drop the call now, so that what it holds (a connection, a permit) is free at once.
        this.inner.set(None);
        Poll::Ready(Err(TimedOut::new(*this.after).into()))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
