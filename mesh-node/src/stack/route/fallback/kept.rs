//! The last good answers to the calls of a route: copied while they pass, and kept once their end was seen.
//!
//! A copy is made as the caller reads, so it neither waits for the caller nor lets it wait, and reads nothing ahead of it: at
//! most `max_answer_bytes` for each call under way. An answer that breaks off leaves the last one as it is. One with trailers,
//! and whatever [`HttpKeep`] says, is not kept. Of two answers the one whose head came later counts, whichever ends first.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::Response;
use http::StatusCode;
use http::request;
use http::response;
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body::SizeHint;
use mesh_resilience::ConfigError;
use mesh_resilience::classify::Outcome;
use mesh_resilience::classify::Retryable;
use mesh_resilience::fallback::stale::Arrival;
use mesh_resilience::fallback::stale::HttpKeep;
use mesh_resilience::fallback::stale::HttpKey;
use mesh_resilience::fallback::stale::Keep;
use mesh_resilience::fallback::stale::Snapshot;
use mesh_resilience::fallback::stale::Stale;
use mesh_resilience::fallback::stale::Weight;
use mesh_transport::Body;
use mesh_transport::BoxError;

use crate::route::StaleAnswers;
use crate::stack::now;
use crate::stack::send::judge;

type Memory = Stale<ByService, Key, Response<Bytes>>;
/// Nothing is kept of requests with a body.
type Request = http::Request<()>;

/// The last good answers of a route.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    memory: Memory,
    keep: ByService,
    most: usize,
}

/// A service as it was called, and the request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key {
    service: Arc<str>,
    request: HttpKey,
}

/// What the answer to a request depends on.
struct Asked<'a> {
    service: &'a Arc<str>,
    head: &'a request::Parts,
}

/// Keeps as HTTP says, for each service apart: a route may be about several, whose requests look the same.
#[derive(Clone, Debug)]
struct ByService(HttpKeep);

impl Keep<Asked<'_>, Response<Bytes>> for ByService {
    type Key = Key;

    fn key(&self, asked: &Asked<'_>) -> Option<Key> {
        let request::Parts {
            method,
            uri,
            headers,
            ..
        } = asked.head;
        Some(Key {
            request: self.0.key_of(method, uri, headers)?,
            service: Arc::clone(asked.service),
        })
    }

    fn weigh(&self, key: &Key, answer: &Response<Bytes>) -> Option<Weight> {
        Keep::<Request, _>::weigh(&self.0, &key.request, answer)
    }

    fn copy(&self, answer: &Response<Bytes>) -> Response<Bytes> {
        Keep::<Request, _>::copy(&self.0, answer)
    }

    fn mark(&self, answer: &mut Response<Bytes>, age: Duration) {
        Keep::<Request, _>::mark(&self.0, answer, age);
    }
}

impl Kept {
    /// Keeps also by `fields`.
    pub(super) fn new<'a>(
        answers: &'a StaleAnswers,
        fields: impl Iterator<Item = &'a HeaderName>,
    ) -> Result<Self, ConfigError> {
        let named = answers.fields.iter().chain(fields).cloned();
        let fields = OF_THE_CALLER.into_iter().chain(named);
        let keep = ByService(fields.fold(HttpKeep::new(), HttpKeep::with_field));
        Ok(Self {
            memory: Stale::new(answers.config.clone(), keep.clone())?,
            keep,
            most: answers.config.max_answer_bytes,
        })
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.memory.snapshot()
    }

    /// The key of a request without a body; nothing for one whose answer is not kept.
    pub(super) fn key(&self, service: &Arc<str>, head: &request::Parts) -> Option<Key> {
        self.memory.key(&Asked { service, head })
    }

    /// The last good answer.
    pub(super) fn give(&self, key: &Key) -> Option<Response<Body>> {
        let answer = self.memory.give::<Asked<'_>>(key, now())?;
        Some(answer.map(Body::from))
    }

    /// The same answer, of which a copy is made while it passes, where it may be kept.
    pub(super) fn keep(&self, key: Key, response: Response<Body>) -> Response<Body> {
        let arrival = self.memory.arrived(now());
        let judged = judge(&response);
        if judged.outcome != Outcome::Success {
            // There is nothing there now, or nothing for this caller; what may be repeated says nothing of that.
            if judged.outcome == Outcome::CallerError && judged.retryable == Retryable::Never {
                self.memory.forget(&key, arrival);
            }
            return response;
        }
        if response.status() == StatusCode::NOT_MODIFIED {
            // What was kept is still as good as it was.
            return response;
        }
        let (head, body) = response.into_parts();
        let pending = Pending {
            kept: self.clone(),
            head: head.clone(),
            key,
            arrival,
            data: Vec::new(),
        };
        if !pending.may_be_kept(&body) {
            pending.forget();
            return Response::from_parts(head, body);
        }
        if body.is_end_stream() {
            pending.keep();
            return Response::from_parts(head, body);
        }
        let copying = Copying {
            body,
            pending: Some(Box::new(pending)),
        };
        Response::from_parts(head, Body::boxed(copying))
    }
}

/// An answer of which the end was not seen yet.
struct Pending {
    kept: Kept,
    key: Key,
    arrival: Arrival,
    head: response::Parts,
    data: Vec<u8>,
}

impl Pending {
    /// Whether the head says nothing against it, nor the body's length.
    fn may_be_kept(&self, body: &Body) -> bool {
        let least = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let head = Response::from_parts(self.head.clone(), Bytes::new());
        let weight = Keep::<Asked<'_>, _>::weigh(&self.kept.keep, &self.key, &head);
        weight.is_some_and(|weight| weight.bytes.saturating_add(least) <= self.kept.most)
    }

    fn keep(self) {
        let Self {
            kept,
            key,
            arrival,
            head,
            data,
        } = self;
        let answer = Response::from_parts(head, Bytes::from(data));
        kept.memory.keep::<Asked<'_>>(key, &answer, arrival);
    }

    /// Forgets the last answer, as there is a new one that may not be kept.
    fn forget(self) {
        self.kept.memory.forget(&self.key, self.arrival);
    }
}

/// The body of such an answer.
struct Copying {
    body: Body,
    /// Nothing once it is kept, or will not be.
    pending: Option<Box<Pending>>,
}

impl Copying {
    fn take_in(&mut self, frame: &Frame<Bytes>) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        let most = pending.kept.most;
        match frame.data_ref() {
            Some(data) if pending.data.len().saturating_add(data.len()) <= most => {
                pending.data.extend_from_slice(data);
            }
            // Too large, or with trailers, which say something of the answer that would be lost.
            _ => {
                if let Some(pending) = self.pending.take() {
                    pending.forget();
                }
            }
        }
    }

    fn end(&mut self) {
        if let Some(pending) = self.pending.take() {
            pending.keep();
        }
    }
}

impl HttpBody for Copying {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                this.take_in(frame);
                // Whoever trusts this never polls for the end.
                if this.body.is_end_stream() {
                    this.end();
                }
            }
            Some(Err(_)) => this.pending = None,
            None => this.end(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Answers are nobody else's business.
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// By these an application says who asks, where no credential does, beside what its route and its node go by.
const OF_THE_CALLER: [HeaderName; 2] = [
    HeaderName::from_static("x-user-id"),
    HeaderName::from_static("x-api-key"),
];

#[cfg(test)]
mod tests;
