//! The two attempts around a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::Hedge;
use super::race::{Next, Race};
use crate::classify::{Classified, Classify, Outcome};
use crate::error::BoxError;
use crate::replay::{Attempt, Replay};

/// Sends slow calls a second time.
#[derive(Clone, Debug)]
pub struct HedgeLayer<C> {
    hedge: Hedge,
    classifier: C,
}

impl<C> HedgeLayer<C> {
    /// Hedges as `hedge` says; `classifier` tells answers from errors that another attempt may better.
    pub const fn new(hedge: Hedge, classifier: C) -> Self {
        Self { hedge, classifier }
    }
}

impl<S, C: Clone> Layer<S> for HedgeLayer<C> {
    type Service = HedgeService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService {
            inner,
            hedge: self.hedge.clone(),
            classifier: self.classifier.clone(),
        }
    }
}

/// The service made by [`HedgeLayer`].
#[derive(Clone, Debug)]
pub struct HedgeService<S, C> {
    inner: S,
    hedge: Hedge,
    classifier: C,
}

impl<S, C, Req> Service<Req> for HedgeService<S, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    Req: Replay,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let started = now();
        // What is a retry already is not multiplied, and earns nothing.
        let is_retry = request.attempt().is_retry();
        if !is_retry {
            self.hedge.shared.budget.record_request(started);
        }
        let copy = if request.is_idempotent() && !is_retry {
            request.try_replay()
        } else {
            None
        };
        let delay = copy.is_some().then(|| self.hedge.delay(started));
        let max_delay = self.hedge.shared.config.max_delay;
        let race = Race::new(started, delay, request.deadline(), max_delay);
        let spare = copy.map(|copy| (self.inner.clone(), copy));
        let timer = race
            .second_at()
            .map(|at| tokio::time::sleep_until(at.into()));
        ResponseFuture {
            first: Some(self.inner.call(request)),
            second: Second::Waiting { timer },
            spare,
            failed: None,
            race,
            started,
            hedge: self.hedge.clone(),
            classifier: self.classifier.clone(),
        }
    }
}

pin_project! {
    /// The answer of a [`HedgeService`].
    pub struct ResponseFuture<S, Req, C>
    where
        S: Service<Req>,
    {
        #[pin]
        first: Option<S::Future>,
        #[pin]
        second: Second<S::Future>,
        spare: Option<(S, Req)>,
        // What the first attempt failed with while the second is not under way.
        failed: Option<Result<S::Response, BoxError>>,
        race: Race,
        started: Instant,
        hedge: Hedge,
        classifier: C,
    }
}

pin_project! {
    #[project = SecondProj]
    enum Second<F> {
        Waiting {
            #[pin]
            timer: Option<Sleep>,
        },
        Readying,
        Running {
            #[pin]
            inner: F,
        },
        Over,
    }
}

impl<S, Req, C> ResponseFuture<S, Req, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
    Req: Replay,
{
    /// Polls the first attempt; gives the call's answer if that is settled by it.
    fn poll_first(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Option<Result<S::Response, BoxError>> {
        let mut this = self.project();
        let first = this.first.as_mut().as_pin_mut()?;
        let Poll::Ready(result) = first.poll(cx) else {
            return None;
        };
        // What it holds (a permit, a connection) is free before anything else begins.
        this.first.set(None);
        let (result, now) = (result.map_err(Into::into), now());
        let classified: Classified = this.classifier.classify(result.as_ref());
        if classified.outcome == Outcome::Success {
            this.hedge
                .record(now.saturating_duration_since(*this.started), now);
        }
        let other_runs = matches!(*this.second, Second::Running { .. });
        match this.race.finished(&classified, other_runs, now) {
            Next::Answer => return Some(result),
            Next::Forget => {}
            Next::Second(at) => {
                *this.failed = Some(result);
                this.second.set(Second::Waiting {
                    timer: Some(tokio::time::sleep_until(at.into())),
                });
            }
        }
        None
    }

    /// Brings the second attempt on its way and polls it.
    fn poll_second(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>> {
        let mut this = self.project();
        loop {
            match this.second.as_mut().project() {
                SecondProj::Waiting { timer } => {
                    let Some(timer) = timer.as_pin_mut() else {
                        return Poll::Pending;
                    };
                    ready!(timer.poll(cx));
                    this.race.second_is_decided();
                    let now = now();
                    let after = now.saturating_duration_since(*this.started);
                    if this.hedge.try_hedge(after, now) {
                        this.second.set(Second::Readying);
                        continue;
                    }
                    this.second.set(Second::Over);
                    *this.spare = None;
                    return this.failed.take().map_or(Poll::Pending, Poll::Ready);
                }
                SecondProj::Readying => {
                    let Some((service, _)) = this.spare.as_mut() else {
                        return Poll::Pending;
                    };
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        this.second.set(Second::Over);
                        *this.spare = None;
                        return if this.first.is_some() {
                            Poll::Pending
                        } else {
                            // What the first one got, where it got something: no second attempt was made.
                            let failed = this.failed.take();
                            Poll::Ready(failed.unwrap_or_else(|| Err(error.into())))
                        };
                    }
                    let Some((mut service, mut request)) = this.spare.take() else {
                        return Poll::Pending;
                    };
                    *this.failed = None;
                    request.begin_attempt(Attempt::FIRST.next());
                    let inner = service.call(request);
                    this.second.set(Second::Running { inner });
                }
                SecondProj::Running { inner } => {
                    let result = ready!(inner.poll(cx)).map_err(Into::into);
                    this.second.set(Second::Over);
                    let (classified, now) = (this.classifier.classify(result.as_ref()), now());
                    let first_runs = this.first.is_some();
                    if this.race.finished(&classified, first_runs, now) == Next::Forget {
                        return Poll::Pending;
                    }
                    if classified.outcome == Outcome::Success {
                        if first_runs {
                            // It took at least as long; left out, the quantile would sink with every hedge.
                            this.hedge
                                .record(now.saturating_duration_since(*this.started), now);
                        }
                        this.hedge.won();
                    }
                    // The loser stops now, also if this future lives on.
                    this.first.set(None);
                    return Poll::Ready(result);
                }
                SecondProj::Over => return Poll::Pending,
            }
        }
    }
}

impl<S, Req, C> Future for ResponseFuture<S, Req, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
    Req: Replay,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(answer) = self.as_mut().poll_first(cx) {
            self.project().second.set(Second::Over);
            return Poll::Ready(answer);
        }
        self.poll_second(cx)
    }
}

impl<S: Service<Req>, Req, C> fmt::Debug for ResponseFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("race", &self.race)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
