//! What a route gives where its service gave no good answer: what another service says, the last good answer to the same
//! request ([`kept`]), or one that is the same for all.
//!
//! | a call came to | GET, PUT, … | POST, PATCH |
//! |---|---|---|
//! | a good answer, the caller's own mistake, an unknown outcome | passed on | passed on |
//! | nothing good, and provably nothing was executed | replaced | replaced, unless it is bound |
//! | nothing good, and something may have been executed | replaced | passed on |
//!
//! *Bound* is a write that one memory alone can answer for (`once`). That holds for all three kinds: an answer from a file must
//! not say that a payment was made, or was not.
//!
//! Another service is asked for fewer calls still: [`Tied`].

mod kept;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Response;
use mesh_auth::request::CanonicalRequest;
use mesh_resilience::classify::Outcome;
use mesh_resilience::fallback::stale::Snapshot;
use mesh_resilience::replay::Attempt;
use mesh_resilience::replay::Replay as _;
use mesh_resilience::timeout::Deadline;
use mesh_resilience::timeout::HasDeadline;
use mesh_transport::Body;

use self::kept::Kept;
use self::kept::Key;
use super::Drawn;
use super::Way;
use crate::error::Error;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_MESH_ERROR;
use crate::respond::X_REQUEST_ID;
use crate::route::FixedAnswer;
use crate::route::Route;
use crate::route::fields_of;
use crate::stack::now;
use crate::stack::once::IDEMPOTENCY_KEY;
use crate::stack::once::Write;
use crate::stack::once::Writes;
use crate::stack::send::OutboundCall;
use crate::stack::send::is_unprocessed;
use crate::stack::send::judge;
use crate::telemetry::FallbackSeries;

/// Says on an answer that it is none of the service's, and which it is.
pub(crate) const X_MESH_FALLBACK: HeaderName = HeaderName::from_static("x-mesh-fallback");

/// What the calls of one route fall back to.
#[derive(Debug)]
pub(crate) struct Fallback {
    /// The service that is asked.
    service: Option<Arc<str>>,
    kept: Option<Kept>,
    answer: Option<FixedAnswer>,
    series: FallbackSeries,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Another service.
    Service,
    /// Memory.
    Stale,
    /// The configuration.
    Answer,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Came {
    /// To what its caller must be told.
    Final,
    /// To nothing good, and nobody acted on it.
    Unprocessed,
    /// To nothing good, and somebody may have acted on it.
    Failed,
}

/// How often a call may be executed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Runs {
    /// Its method says that it makes no difference.
    Often,
    /// Once.
    Once,
    /// Once, and one instance alone knows whether it was.
    Bound,
}

/// What keeps a call from another service, as its application made it.
#[derive(Clone, Copy, Debug)]
struct Tied {
    /// It is a write with a key of the application's: who executes it remembers it, and no other service does. Sent again
    /// with the key, it would reach the first service, which has not seen it.
    is_keyed: bool,
    /// It is made for a retry of somebody further up, so this is not the first time that all below is asked. Nodes in a row
    /// that each asked two services each time would make `2^n` calls.
    is_retry: bool,
}

/// A call whose route has a fallback.
#[derive(Clone, Copy)]
pub(crate) struct Falling<'a> {
    pub(crate) way: &'a Way,
    pub(crate) drawn: &'a Drawn,
    fallback: &'a Fallback,
    tied: Tied,
    /// The service as it was called.
    pub(crate) service: &'a Arc<str>,
    pub(crate) is_grpc: bool,
    pub(crate) id: Option<&'a HeaderValue>,
}

/// What is held of such a call from before it is sent.
pub(crate) struct Spare<'a> {
    pub(crate) falling: Falling<'a>,
    /// The call once more, where it can be sent elsewhere.
    call: Option<OutboundCall>,
    key: Option<Key>,
    is_idempotent: bool,
    write: Option<Arc<Write>>,
    deadline: Option<Deadline>,
    /// With less time left than that, another service would work for nothing.
    least: Duration,
}

impl Fallback {
    /// That of a route, where it has one.
    pub(super) fn new(
        route: &Route,
        api_key: &HeaderName,
        series: impl FnOnce(&crate::route::Fallback) -> FallbackSeries,
    ) -> Result<Option<Self>, Error> {
        let Some(fallback) = &route.fallback else {
            return Ok(None);
        };
        let wrong = |source| {
            let what = format!("fallback.stale of the route {}", route.name);
            Error::config(what, source)
        };
        let kept = fallback.stale.as_ref();
        let kept = kept.map(|stale| Kept::new(stale, fields_of(route).chain([api_key])));
        Ok(Some(Self {
            service: fallback.service.clone(),
            kept: kept.transpose().map_err(wrong)?,
            answer: fallback.answer.clone(),
            series: series(fallback),
        }))
    }

    /// What is kept of old answers, where some are.
    pub(super) fn kept(&self) -> Option<Snapshot> {
        self.kept.as_ref().map(Kept::snapshot)
    }
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Stale => "stale",
            Self::Answer => "answer",
        }
    }
}

impl Came {
    /// To an answer, of an application or of a node on the way to it.
    pub(crate) fn to_answer(response: &Response<Body>) -> Self {
        match judge(response).outcome {
            Outcome::Success | Outcome::CallerError => Self::Final,
            _ if is_unprocessed(response) => Self::Unprocessed,
            _ => Self::Failed,
        }
    }

    /// To a refusal of this node, which is judged by what the caller would see of it: so a fault that a route makes counts
    /// as if the service had answered so.
    pub(crate) fn to_refusal(refusal: &Refusal, is_grpc: bool) -> Self {
        if refusal.code() == Code::OutcomeUnknown {
            return Self::Final;
        }
        Self::to_answer(&refusal.clone().into_response(is_grpc, None))
    }
}

impl Tied {
    fn new(method: &Method, headers: &HeaderMap) -> Self {
        Self {
            is_keyed: !method.is_idempotent() && headers.contains_key(IDEMPOTENCY_KEY),
            is_retry: Attempt::of(headers).is_retry(),
        }
    }

    /// Whether another service may be asked, where the first one was or was not. One that never was, as its circuit is
    /// open, costs a retry no second call.
    const fn lets_go(self, was_sent: bool) -> bool {
        !(self.is_keyed || self.is_retry && was_sent)
    }
}

/// Whether something else may be given in place of what a call came to: the table of this page.
const fn is_replaced(came: Came, runs: Runs) -> bool {
    match (came, runs) {
        (Came::Final, _) | (_, Runs::Bound) | (Came::Failed, Runs::Once) => false,
        (Came::Failed | Came::Unprocessed, Runs::Often) | (Came::Unprocessed, Runs::Once) => true,
    }
}

impl<'a> Falling<'a> {
    /// A call of `service` that took a route; nothing where the route has no fallback.
    pub(crate) fn of(
        (way, drawn): &'a (&'a Way, Drawn),
        service: &'a Arc<str>,
        request: &CanonicalRequest,
        (is_grpc, id): (bool, Option<&'a HeaderValue>),
    ) -> Option<Self> {
        let fallback = way.fallback.as_ref()?;
        Some(Self {
            way,
            drawn,
            fallback,
            tied: Tied::new(request.method(), request.headers()),
            service,
            is_grpc,
            id,
        })
    }

    /// What is held of the call while it is sent, within so much time.
    pub(crate) fn spare(self, call: &OutboundCall, total: Duration) -> Box<Spare<'a>> {
        let mut spare = self.new_spare(call);
        let other = self.fallback.service.as_ref();
        spare.call = other.and_then(|_| call.try_replay());
        let now = now();
        let own = Deadline::after(now, total);
        let deadline = spare.deadline.map_or(own, |carried| carried.earlier(own));
        spare.least = (deadline.remaining(now) / LEAST_PART).min(MAX_LEAST);
        spare.deadline = Some(deadline);
        Box::new(spare)
    }

    /// The same of a call that is not sent.
    pub(crate) fn unsent(self, call: OutboundCall) -> Box<Spare<'a>> {
        let mut spare = self.new_spare(&call);
        spare.call = Some(call);
        Box::new(spare)
    }

    fn new_spare(self, call: &OutboundCall) -> Spare<'a> {
        let kept = self.fallback.kept.as_ref();
        // The answer may depend on a body, of which nothing is remembered.
        let kept = kept.filter(|_| !call.has_body());
        Spare {
            falling: self,
            call: None,
            key: kept.and_then(|kept| kept.key(self.service, call.head())),
            write: call.write(),
            deadline: HasDeadline::deadline(call),
            is_idempotent: call.head().method.is_idempotent(),
            least: Duration::ZERO,
        }
    }

    /// Says on an answer that it is one of this kind, and counts it.
    pub(crate) fn mark(self, kind: Kind, response: &mut Response<Body>) {
        let value = HeaderValue::from_static(kind.as_str());
        response.headers_mut().insert(X_MESH_FALLBACK, value);
        let series = &self.fallback.series;
        let counter = match kind {
            Kind::Service => &series.service,
            Kind::Stale => &series.stale,
            Kind::Answer => &series.answer,
        };
        if let Some(counter) = counter {
            counter.inc();
        }
        let (route, kind) = (&self.way.route.name, kind.as_str());
        tracing::debug!(%route, kind, service = %self.service, "a call is answered by its route's fallback");
    }
}

impl<'a> Spare<'a> {
    /// What the call came to.
    pub(crate) fn came<T>(&self, result: &Result<(Response<Body>, T), Refusal>) -> Came {
        match result {
            Ok((response, _)) => Came::to_answer(response),
            Err(refusal) => Came::to_refusal(refusal, self.falling.is_grpc),
        }
    }

    /// What it came to at the service that was asked in place of the first one. What a node said of that call, such as that
    /// its policy denies it, is not what the caller asked about.
    pub(crate) fn came_at_other<T>(&self, result: &Result<(Response<Body>, T), Refusal>) -> Came {
        let is_refused = match result {
            Ok((response, _)) => {
                response.headers().contains_key(X_MESH_ERROR) && is_unprocessed(response)
            }
            Err(refusal) => refusal.code() != Code::OutcomeUnknown && !refusal.is_processed(),
        };
        if is_refused {
            Came::Unprocessed
        } else {
            self.came(result)
        }
    }

    /// Whether something else may be given in place of that.
    pub(crate) fn is_replaced(&self, came: Came) -> bool {
        let is_bound = || self.write.as_ref().is_some_and(|write| write.is_bound());
        let runs = if self.is_idempotent {
            Runs::Often
        } else if is_bound() {
            Runs::Bound
        } else {
            Runs::Once
        };
        is_replaced(came, runs)
    }

    /// The service to ask, where that is not the one that was, and how long somebody waits for its answer. `was_sent` unless
    /// no node got the call so far.
    pub(crate) fn other(
        &self,
        asked: &str,
        was_sent: bool,
    ) -> Option<(&'a Arc<str>, Option<Duration>)> {
        let other = self.falling.fallback.service.as_ref()?;
        let left = self.deadline.map(|deadline| deadline.remaining(now()));
        let is_in_time = left.is_none_or(|left| left > self.least);
        let may_go = self.call.is_some() && self.falling.tied.lets_go(was_sent);
        let is_asked = may_go && **other != *asked && is_in_time;
        is_asked.then_some((other, left))
    }

    /// The call for that service.
    pub(crate) fn take_call(&mut self, writes: Option<&Writes>) -> Option<OutboundCall> {
        let call = self.call.take()?.for_other_service(self.deadline);
        let call = call.with_write(writes);
        self.write = call.write();
        Some(call)
    }

    /// Takes in what is passed on to the caller as the service said it.
    pub(crate) fn keep(self, response: Response<Body>) -> Response<Body> {
        match (&self.falling.fallback.kept, self.key) {
            (Some(kept), Some(key)) => kept.keep(key, response),
            _ => response,
        }
    }

    /// The last good answer.
    pub(crate) fn stale(&self) -> Option<Response<Body>> {
        let Falling { fallback, id, .. } = self.falling;
        let kept = fallback.kept.as_ref()?;
        let mut response = kept.give(self.key.as_ref()?)?;
        say_id(&mut response, id);
        Some(response)
    }

    /// The answer that is the same for all; to a caller of gRPC it would mean nothing.
    pub(crate) fn answer(&self) -> Option<Response<Body>> {
        let Falling {
            fallback,
            is_grpc,
            id,
            ..
        } = self.falling;
        let answer = fallback.answer.as_ref().filter(|_| !is_grpc)?;
        let mut response = Response::new(Body::from(answer.body.clone()));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers.clone();
        say_id(&mut response, id);
        Some(response)
    }
}

/// Says which call it answers.
fn say_id(response: &mut Response<Body>, id: Option<&HeaderValue>) {
    if let Some(id) = id {
        response.headers_mut().insert(X_REQUEST_ID, id.clone());
    }
}

/// A called node gives up a twentieth of the time, or 5 ms, before its caller does, and a chain of nodes as much each: that is
/// over, and not left.
const LEAST_PART: u32 = 10;
const MAX_LEAST: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests;
