//! The retry loop around a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::policy::{self, Failed};
use super::{Attempt, Budget, Observe, Replay, RetryConfig, Stop};
use crate::classify::Classify;
use crate::error::{BoxError, ConfigError};
use crate::random::{Random, SplitMix64};

/// Repeats calls that failed.
pub struct RetryLayer<C> {
    parts: Arc<Parts<C>>,
}

struct Parts<C> {
    config: RetryConfig,
    budget: Budget,
    classifier: C,
    random: Arc<dyn Random>,
    observer: Option<Arc<dyn Observe>>,
}

impl<C> RetryLayer<C> {
    /// Retries what `classifier` finds worth it, within `budget`, with a jitter source of its own and no observer.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `config` makes no sense; see the fields of [`RetryConfig`] for their ranges.
    pub fn new(config: RetryConfig, budget: Budget, classifier: C) -> Result<Self, ConfigError> {
        config.check()?;
        let random = Arc::new(SplitMix64::from_entropy());
        Ok(Self {
            parts: Arc::new(Parts {
                config,
                budget,
                classifier,
                random,
                observer: None,
            }),
        })
    }
}

impl<C: Clone> RetryLayer<C> {
    /// Draws the jitter from `random`.
    #[must_use]
    pub fn with_random(self, random: Arc<dyn Random>) -> Self {
        Self {
            parts: Arc::new(Parts {
                random,
                ..self.parts.copy()
            }),
        }
    }

    /// Reports to `observer`.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observe>) -> Self {
        Self {
            parts: Arc::new(Parts {
                observer: Some(observer),
                ..self.parts.copy()
            }),
        }
    }
}

impl<C> Clone for RetryLayer<C> {
    fn clone(&self) -> Self {
        Self {
            parts: Arc::clone(&self.parts),
        }
    }
}

impl<C> fmt::Debug for RetryLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("config", &self.parts.config)
            .finish_non_exhaustive()
    }
}

impl<S, C> Layer<S> for RetryLayer<C> {
    type Service = Retry<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry {
            inner,
            parts: Arc::clone(&self.parts),
        }
    }
}

impl<C: Clone> Parts<C> {
    fn copy(&self) -> Self {
        Self {
            config: self.config.clone(),
            budget: self.budget.clone(),
            classifier: self.classifier.clone(),
            random: Arc::clone(&self.random),
            observer: self.observer.clone(),
        }
    }
}

impl<C> Parts<C> {
    /// Decides about a call that failed, and takes the retry out of the budget.
    fn decide(&self, failed: &Failed) -> Result<Duration, Stop> {
        let now = now();
        let decision = policy::decide(&self.config, failed, now, self.random.unit())
            // Asked last, so that a retry which does not happen costs nothing.
            .and_then(|delay| {
                if self.budget.try_retry(now) {
                    Ok(delay)
                } else {
                    Err(Stop::Budget)
                }
            });
        if let Some(observer) = &self.observer {
            match decision {
                Ok(delay) => observer.retrying(failed.attempts + 1, delay),
                Err(reason) => observer.gave_up(failed.attempts, reason),
            }
        }
        decision
    }
}

/// The service made by [`RetryLayer`].
pub struct Retry<S, C> {
    inner: S,
    parts: Arc<Parts<C>>,
}

impl<S: Clone, C> Clone for Retry<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            parts: Arc::clone(&self.parts),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Retry<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.parts.config;
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("config", config)
            .finish_non_exhaustive()
    }
}

impl<S, C, Req> Service<Req> for Retry<S, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
    Req: Replay,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let made_for = request.attempt();
        // What is a retry already earns no further ones.
        if !made_for.is_retry() {
            self.parts.budget.record_request(now());
        }
        let spare = if self.parts.config.max_attempts.get() > 1 && !made_for.is_retry() {
            request.try_replay()
        } else {
            None
        };
        let facts = Facts {
            made_for,
            is_idempotent: request.is_idempotent(),
            deadline: request.deadline(),
            attempt: Attempt::FIRST,
        };
        // Retries go to a clone of the service; without a copy to send there is no need for one.
        let service = spare.is_some().then(|| self.inner.clone());
        let state = CallState::Calling {
            inner: self.inner.call(request),
        };
        ResponseFuture {
            state,
            service,
            spare,
            facts,
            parts: Arc::clone(&self.parts),
        }
    }
}

#[derive(Debug)]
struct Facts {
    made_for: Attempt,
    is_idempotent: bool,
    deadline: Option<crate::deadline::Deadline>,
    attempt: Attempt,
}

pin_project! {
    /// The answer of a [`Retry`].
    pub struct ResponseFuture<S, Req, C>
    where
        S: Service<Req>,
    {
        #[pin]
        state: CallState<S::Future>,
        service: Option<S>,
        spare: Option<Req>,
        facts: Facts,
        parts: Arc<Parts<C>>,
    }
}

pin_project! {
    #[project = CallStateProj]
    enum CallState<F> {
        Calling {
            #[pin]
            inner: F,
        },
        Waiting {
            #[pin]
            sleep: Sleep,
        },
        Readying,
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                CallStateProj::Calling { inner } => {
                    let result = ready!(inner.poll(cx)).map_err(Into::into);
                    let classified = this.parts.classifier.classify(result.as_ref());
                    if !policy::is_worth_retrying(&classified) {
                        return Poll::Ready(result);
                    }
                    let spare = this.spare.as_ref();
                    let failed = Failed {
                        attempts: this.facts.attempt.number().get(),
                        made_for: this.facts.made_for,
                        // The copy knows what became of the attempt.
                        is_idempotent: spare
                            .map_or(this.facts.is_idempotent, Replay::is_idempotent),
                        has_copy: this.spare.is_some() && this.service.is_some(),
                        deadline: this.facts.deadline,
                        classified,
                    };
                    let Ok(delay) = this.parts.decide(&failed) else {
                        return Poll::Ready(result);
                    };
                    // Frees what the failed call holds (a permit, a connection) before the wait.
                    drop(result);
                    this.state.set(CallState::Waiting {
                        sleep: tokio::time::sleep(delay),
                    });
                }
                CallStateProj::Waiting { sleep } => {
                    ready!(sleep.poll(cx));
                    this.state.set(CallState::Readying);
                }
                CallStateProj::Readying => {
                    let Some(service) = this.service.as_mut() else {
                        return Poll::Pending;
                    };
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let Some(mut request) = this.spare.take() else {
                        return Poll::Pending;
                    };
                    this.facts.attempt = this.facts.attempt.next();
                    if this.facts.attempt.number() < this.parts.config.max_attempts {
                        *this.spare = request.try_replay();
                    }
                    request.begin_attempt(this.facts.attempt);
                    let inner = service.call(request);
                    this.state.set(CallState::Calling { inner });
                }
            }
        }
    }
}

impl<S: Service<Req>, Req, C> fmt::Debug for ResponseFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
