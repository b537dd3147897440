//! The end of the outbound stack: pick an endpoint, take a connection, seal where configured, send.

mod attempts;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Instant;

use futures_core::future::BoxFuture;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::request::Parts;
use http_body::Body as _;
use mesh_resilience::balance::Subset;
use mesh_resilience::bulkhead::Permit;
use mesh_resilience::classify::Classified;
use mesh_resilience::classify::Classify;
use mesh_resilience::classify::HttpClassifier;
use mesh_resilience::classify::Outcome;
use mesh_resilience::classify::Retryable;
use mesh_resilience::deadline::carried;
use mesh_resilience::find_cause;
use mesh_resilience::replay::Attempt;
use mesh_resilience::replay::Replay as _;
use mesh_resilience::timeout::Deadline;
use mesh_resilience::timeout::HasDeadline;
use mesh_resilience::timeout::SetDeadline;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::body::Watch;
use mesh_transport::peer::Unsent;

pub(crate) use self::attempts::MayHaveRun;
use crate::node::wall_clock;
use crate::respond::Code;
use crate::respond::X_MESH_ERROR;
use crate::respond::X_MESH_PROCESSED;
use crate::stack::endpoints::Endpoints;
use crate::stack::endpoints::InFlight;
use crate::stack::endpoints::Pick;
use crate::stack::endpoints::Unpicked;
use crate::stack::now;
use crate::stack::once::OutcomeUnknown;
use crate::stack::once::Write;
use crate::stack::once::Writes;
use crate::stack::replay::Replay;
use crate::stack::replay::replayable;

/// A request on its way out, in the form that the layers of the outbound stack understand.
pub(crate) struct OutboundCall {
    head: Arc<Parts>,
    body: Body,
    deadline: Option<Deadline>,
    /// When the application made it.
    since: Instant,
    /// Where the body is small enough to be kept for another attempt.
    replay: Option<Replay>,
    /// Which attempts so far may have been acted on; shared by all attempts of a call.
    may_have_run: MayHaveRun,
    /// Whether the application broke off its own request body.
    caller_broke_off: Arc<AtomicBool>,
    /// What makes a call that must not run twice one that can be sent twice.
    write: Option<Arc<Write>>,
    aim: Aim,
}

/// Which endpoint a call goes to, as far as that is said beforehand.
#[derive(Clone, Debug, Default)]
struct Aim {
    /// Some of the service's.
    subset: Option<Arc<Subset>>,
    /// What the caller is known by, where the service is balanced by it.
    hash: Option<u64>,
    /// Nobody waits for a copy, and what becomes of it says nothing of its endpoint.
    is_copy: bool,
    /// It was sent to another service before.
    is_fallback: bool,
}

/// What a copy of a call is made of, once the call's body was read.
#[derive(Debug)]
pub(crate) struct Original {
    head: Arc<Parts>,
    /// Nothing where there is no body.
    replay: Option<Replay>,
}

/// What comes back, with all that must live as long as its body.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) in_flight: InFlight,
    pub(crate) permit: Option<Permit>,
    /// Whether a repeat would get the same one, from memory.
    pub(crate) is_final: bool,
}

/// The application broke off its own request: its fault and not the called service's.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off before its end")]
pub(crate) struct CallerBrokeOff;

/// Learns whether a request body ends as it should.
struct BrokenOff(Arc<AtomicBool>);

impl Watch for BrokenOff {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, _: &HeaderMap) {}

    fn end(&mut self, complete: bool) {
        if !complete {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl OutboundCall {
    pub(crate) fn new(head: Parts, body: Body, deadline: Option<Deadline>) -> Self {
        let caller_broke_off = Arc::default();
        let body = if body.is_end_stream() {
            body
        } else {
            body.with_watch(Box::new(BrokenOff(Arc::clone(&caller_broke_off))))
        };
        let (body, replay) = match replayable(body) {
            Ok(replay) => (replay.body(), Some(replay)),
            Err(body) => (body, None),
        };
        Self {
            head: Arc::new(head),
            body,
            deadline,
            since: now(),
            replay,
            may_have_run: MayHaveRun::default(),
            caller_broke_off,
            write: None,
            aim: Aim::default(),
        }
    }

    /// Goes to endpoints of a subset, and to the same one for the same hash where the service is balanced so.
    #[must_use]
    pub(crate) fn with_aim(mut self, subset: Option<Arc<Subset>>, hash: Option<u64>) -> Self {
        (self.aim.subset, self.aim.hash) = (subset, hash);
        self
    }

    /// Makes a call that must not run twice one that can be sent twice, where its body can.
    #[must_use]
    pub(crate) fn with_write(mut self, writes: Option<&Writes>) -> Self {
        let can_be_sent_again = self.replay.is_some() || self.body.try_clone().is_some();
        let writes = writes.filter(|_| can_be_sent_again);
        self.write = writes.and_then(|writes| writes.of(&self.head));
        self
    }

    /// What is known of it as a write, also after the call is gone.
    pub(crate) fn write(&self) -> Option<Arc<Write>> {
        self.write.clone()
    }

    /// Whether two attempts may be under way at a time: of a body that is kept only one can be read, and a write that is made
    /// safe goes to one instance.
    pub(crate) fn may_run_twice_at_once(&self) -> bool {
        self.head.method.is_idempotent() && self.body.is_end_stream() && self.write.is_none()
    }

    /// Whether more is sent than its head, as far as is known beforehand.
    pub(crate) fn has_body(&self) -> bool {
        self.replay.is_some() || !self.body.is_end_stream()
    }

    /// What a copy can be made of; nothing where the body is not kept.
    pub(crate) fn original(&self) -> Option<Original> {
        let is_kept = self.replay.is_some() || self.body.is_end_stream();
        is_kept.then(|| Original {
            head: Arc::clone(&self.head),
            replay: self.replay.clone(),
        })
    }

    /// What is sent, but for its body.
    pub(crate) fn head(&self) -> &Parts {
        &self.head
    }

    /// Its header fields, to be changed.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut Arc::make_mut(&mut self.head).headers
    }

    /// The same call to another service, which knows nothing of what became of it so far: as one more attempt, after which
    /// there is none.
    #[must_use]
    pub(crate) fn for_other_service(mut self, deadline: Option<Deadline>) -> Self {
        let attempt = self.attempt().next();
        self.begin_attempt(attempt);
        self.deadline = deadline;
        self.may_have_run = MayHaveRun::default();
        self.write = None;
        self.aim = Aim {
            is_fallback: true,
            ..Aim::default()
        };
        self
    }

    /// Whether it was sent to another service before.
    pub(crate) fn is_fallback(&self) -> bool {
        self.aim.is_fallback
    }

    /// Tells, also after the call is gone, whether somebody may have acted on it.
    pub(crate) fn may_have_run(&self) -> MayHaveRun {
        self.may_have_run.clone()
    }

    fn into_request(self) -> Request<Body> {
        let mut head = Arc::unwrap_or_clone(self.head);
        say_time_left(&mut head.headers, self.deadline, self.since);
        // The newest reader of all: of a body that is kept, an older one can't be read once a newer one is.
        let body = self.replay.map_or(self.body, |replay| replay.body());
        Request::from_parts(head, body)
    }
}

impl Original {
    /// The copy, with its head changed; nothing where the call's body was not read to its end.
    pub(crate) fn into_copy(self, change: impl FnOnce(&mut Parts)) -> Option<OutboundCall> {
        let body = match &self.replay {
            Some(replay) => replay.whole()?,
            None => Body::empty(),
        };
        let mut head = Arc::unwrap_or_clone(self.head);
        change(&mut head);
        let mut copy = OutboundCall::new(head, body, None);
        copy.aim.is_copy = true;
        Some(copy)
    }
}

impl mesh_resilience::retry::Replay for OutboundCall {
    fn try_replay(&self) -> Option<Self> {
        let body = match &self.replay {
            Some(replay) => replay.body(),
            None => self.body.try_clone()?,
        };
        Some(Self {
            head: Arc::clone(&self.head),
            body,
            deadline: self.deadline,
            since: self.since,
            replay: self.replay.clone(),
            may_have_run: self.may_have_run.clone(),
            caller_broke_off: Arc::clone(&self.caller_broke_off),
            write: self.write.clone(),
            aim: self.aim.clone(),
        })
    }

    fn is_idempotent(&self) -> bool {
        let is_remembered = self.write.as_ref().is_some_and(|write| write.is_bound());
        self.head.method.is_idempotent() || is_remembered
    }

    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    fn attempt(&self) -> Attempt {
        Attempt::of(&self.head.headers)
    }

    fn begin_attempt(&mut self, attempt: Attempt) {
        attempt.write(&mut Arc::make_mut(&mut self.head).headers);
    }
}

impl HasDeadline for OutboundCall {
    fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }
}

impl SetDeadline for OutboundCall {
    fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = Some(deadline);
    }
}

/// Judges answers for the breaker, the retries and the endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge;

impl Classify<Answer> for Judge {
    fn classify(&self, result: Result<&Answer, &BoxError>) -> Classified {
        match result {
            Ok(answer) if answer.is_final => {
                judge(&answer.response).with_retryable(Retryable::Never)
            }
            Ok(answer) => judge(&answer.response),
            Err(error)
                if find_cause::<Unpicked>(error).is_some()
                    || find_cause::<OutcomeUnknown>(error).is_some()
                    || find_cause::<CallerBrokeOff>(error).is_some() =>
            {
                Classified::new(Outcome::Unknown)
            }
            Err(error) => {
                let unprocessed = find_cause::<mesh_transport::Error>(error);
                let judged = Classified::of_error(error);
                if unprocessed.is_some_and(mesh_transport::Error::is_unprocessed) {
                    judged.with_retryable(Retryable::Always)
                } else {
                    judged
                }
            }
        }
    }
}

/// As for any HTTP answer; and where the other node says that its application never saw the request, even one that
/// is not safe to repeat may be repeated.
pub(crate) fn judge(response: &Response<Body>) -> Classified {
    let judged = HttpClassifier::new()
        .with_clock(wall_clock)
        .classify(Ok(response));
    match judged.retryable {
        Retryable::IfIdempotent if is_unprocessed(response) => {
            let judged = judged.with_retryable(Retryable::Always);
            // A node that sheds keeps its service alive; a circuit that opens for that would keep everybody away.
            if is_overloaded(response) {
                judged.with_outcome(Outcome::Unknown)
            } else {
                judged
            }
        }
        _ => judged,
    }
}

/// Whether the other node itself, and not its application, says that it has too much to do.
fn is_overloaded(response: &Response<Body>) -> bool {
    let code = response.headers().get(X_MESH_ERROR);
    code.is_some_and(|code| code == Code::Overloaded.as_str())
}

/// Whether the other node says that its application never saw the request. No application can say so: its node drops
/// every `x-mesh-*` field of an answer.
pub(crate) fn is_unprocessed(response: &Response<Body>) -> bool {
    let said = response.headers().get(X_MESH_PROCESSED);
    said.is_some_and(|said| said == "no")
}

/// Sends to one of the endpoints of a service.
#[derive(Clone, Debug)]
pub(crate) struct Send {
    endpoints: Arc<Endpoints>,
}

impl Send {
    pub(crate) fn new(endpoints: Arc<Endpoints>) -> Self {
        Self { endpoints }
    }
}

impl tower_service::Service<OutboundCall> for Send {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: OutboundCall) -> Self::Future {
        let endpoints = Arc::clone(&self.endpoints);
        Box::pin(async move { send(&endpoints, call).await })
    }
}

/// Tries endpoints until one takes the request; as long as none has seen a byte of it, that is safe for any request.
async fn send(endpoints: &Endpoints, call: OutboundCall) -> Result<Answer, BoxError> {
    let (deadline, may_have_run) = (call.deadline, call.may_have_run());
    let (caller_broke_off, aim) = (Arc::clone(&call.caller_broke_off), call.aim.clone());
    let write = call.write();
    let spare = write.as_ref().and_then(|_| call.try_replay());
    let mut request = call.into_request();
    let by_service = || endpoints.balancing().hash(request.headers());
    let hash = aim.hash.or_else(by_service);
    let list = endpoints.current();
    let (mut tried, mut renewed) = (Vec::new(), 0);
    loop {
        let only = write.as_ref().and_then(|write| write.only());
        let pick = Pick::new(deadline, hash)
            .among(aim.subset.as_ref())
            .only(only.as_ref())
            .other_than(&tried);
        let (endpoint, mut in_flight) = list.pick(&pick)?;
        if aim.is_copy {
            in_flight.ignore();
        }
        // Also if this is dropped in the middle: only what is proven is taken back.
        may_have_run.begin();
        let write = write.as_deref();
        let was_bound = write.is_some_and(|write| write.begin(&endpoint, request.headers_mut()));
        let failed = match endpoint.exchange(request).await {
            Ok(response) => {
                let is_unprocessed = is_unprocessed(&response);
                if is_unprocessed {
                    may_have_run.did_not_run();
                }
                record(&mut in_flight, &response);
                let told = (was_bound, is_unprocessed);
                let answer = match write {
                    Some(write) => write.take(&endpoint, told, response).await?,
                    None => Some((response, false)),
                };
                let Some((response, is_final)) = answer else {
                    renewed += 1;
                    if let Some(write) = write.filter(|_| renewed >= MAX_RENEWALS) {
                        write.give_up();
                    }
                    let again = spare.as_ref().and_then(OutboundCall::try_replay);
                    request = again.ok_or(OutcomeUnknown)?.into_request();
                    continue;
                };
                return Ok(Answer {
                    response,
                    in_flight,
                    permit: None,
                    is_final,
                });
            }
            Err(failed) => failed,
        };
        if failed.error.is_unprocessed() {
            may_have_run.did_not_run();
            if let Some(write) = write {
                write.did_not_run(was_bound);
            }
        }
        if caller_broke_off.load(Ordering::Relaxed) {
            in_flight.record(Outcome::Unknown, String::new);
            return Err(CallerBrokeOff.into());
        }
        in_flight.failed(&failed.error);
        let Unsent {
            error,
            request: Some(unsent),
            ..
        } = failed
        else {
            return Err(failed.error.into());
        };
        tracing::debug!(destination = endpoint.destination(), %error, "endpoint did not take the request");
        tried.push(in_flight.index());
        if tried.len() >= MAX_ENDPOINTS_TRIED.min(list.len()) {
            return Err(error.into());
        }
        request = *unsent;
    }
}

/// Takes in how an endpoint answered.
fn record(in_flight: &mut InFlight, response: &Response<Body>) {
    let outcome = judge(response).outcome;
    if outcome == Outcome::Failure && is_of_gateway(response) {
        in_flight.gateway_failed(|| answered(response));
    } else {
        in_flight.record(outcome, || answered(response));
    }
}

/// Whether a failure is one of those that say nothing of the application itself: 502, 503, 504, or `UNAVAILABLE` of gRPC.
fn is_of_gateway(response: &Response<Body>) -> bool {
    matches!(response.status().as_u16(), 502..=504)
        || response
            .headers()
            .get("grpc-status")
            .is_some_and(|status| status == "14")
}

/// Tells the next node how long an answer is waited for; what the application said is part of that.
fn say_time_left(headers: &mut HeaderMap, deadline: Option<Deadline>, since: Instant) {
    match deadline {
        Some(deadline) => {
            let now = now();
            let left = carried::for_next_hop(deadline.remaining(now));
            carried::carry(headers, left, now.saturating_duration_since(since));
        }
        None => drop(headers.remove(carried::X_MESH_TIMEOUT_MS)),
    }
}

/// What an answer that counts as a failure said.
fn answered(response: &Response<Body>) -> String {
    let status = response.status().as_u16();
    let grpc = response.headers().get("grpc-status");
    match grpc.and_then(|status| status.to_str().ok()) {
        Some(grpc) => format!("answered with grpc-status {grpc}"),
        None => format!("answered with status {status}"),
    }
}

/// Looking further than this takes longer than a caller waits.
const MAX_ENDPOINTS_TRIED: usize = 3;
/// One is the rule, where an instance is new to us or was not called for long; behind an address with several instances it
/// can take more. After that a call goes as one that is not sent again.
const MAX_RENEWALS: u32 = 4;
