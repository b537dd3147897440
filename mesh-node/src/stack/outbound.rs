//! Requests from the local application to other services, outermost layer first.
//!
//! | # | layer | refuses with | why here |
//! |--:|---|---|---|
//! | 1 | normalise | `bad_request`, `headers_too_large` | what is routed is what is sent |
//! | 2 | route | `no_route` | all below is per service, or per service and route |
//! | 3 | limit of the route | `rate_limited` | what is refused costs nothing below |
//! | 4 | fallback of the route | – | all below has given up; a caller that asks too often is told so |
//! | 5 | faults of the route | `fault_injected` | before the deadline, so that none of the layers below counts them |
//! | 6 | changes of the route, token | `bad_request` | after identity headers of the caller are gone |
//! | 7 | drop | `overloaded` | a share that a control plane asks for; no attempt, so no retry and no failure of the service |
//! | 8 | timeout | `timeout` | one deadline over all attempts |
//! | 9 | retry, and below it hedge | – | each attempt passes the breaker anew |
//! | 10 | breaker | `circuit_open` | spares a service that fails, and our bulkhead |
//! | 11 | attempt timeout | `timeout` | below the breaker, so that silence counts as a failure |
//! | 12 | bulkhead | `overloaded` | holds its place until the answer's body is over |
//! | 13 | send | `no_endpoints`, `upstream_failed` | picks, connects, seals |

mod failure;
mod fallback;
mod lookup;

use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_auth::request::strip_identity_headers;
use mesh_resilience::bulkhead::Permit;
use mesh_resilience::classify::Outcome;
use mesh_resilience::classify::RETRY_NEVER;
use mesh_resilience::classify::X_MESH_RETRY;
use mesh_resilience::deadline::carried::X_MESH_TIMEOUT_MS;
use mesh_resilience::deadline::carried::carried;
use mesh_resilience::replay::X_MESH_ATTEMPT;
use mesh_resilience::timeout::Deadline;
use mesh_transport::Body;
use mesh_transport::app::is_grpc;
use mesh_transport::tasks::Tasks;

use self::failure::failed;
use self::fallback::answered;
use self::lookup::called;
use self::lookup::service;
use crate::discovery::control_planes::ControlPlanes;
use crate::discovery::services::FIRST_ANSWER;
use crate::discovery::services::Services;
use crate::respond::Code;
use crate::respond::Refusal;
use crate::respond::X_MESH_ERROR;
use crate::respond::X_MESH_PROCESSED;
use crate::respond::X_REQUEST_ID;
use crate::service_token::ServiceTokens;
use crate::stack::endpoints::Endpoints;
use crate::stack::endpoints::InFlight;
use crate::stack::headers::strip_hop_by_hop;
use crate::stack::headers::trailer_rule;
use crate::stack::inbound::LimitHeaders;
use crate::stack::inbound::show_limits;
use crate::stack::lane::ByRoute;
use crate::stack::lane::Lane;
use crate::stack::lane::Seen;
use crate::stack::now;
use crate::stack::once::Writes;
use crate::stack::once::outcome_unknown;
use crate::stack::record::Line;
use crate::stack::record::Record;
use crate::stack::record::Recorder;
use crate::stack::route::Copy;
use crate::stack::route::CopyLane;
use crate::stack::route::Falling;
use crate::stack::route::Routes;
use crate::stack::route::Way;
use crate::stack::route::redirected;
use crate::stack::send::Answer;
use crate::stack::send::OutboundCall;
use crate::stack::send::judge;
use crate::telemetry::PairSeries;
use crate::trace::Ids;

/// The breaker of the service that was called, as DESIGN section 8 names the states.
pub(crate) const X_CIRCUIT_BREAKER_STATE: HeaderName =
    HeaderName::from_static("x-circuit-breaker-state");
/// The service token of a call.
pub(crate) const X_MESH_TOKEN: HeaderName = HeaderName::from_static("x-mesh-token");
/// Where JSON calls go: `POST /v1/call/SERVICE/METHOD`.
pub(crate) const CALL_PREFIX: &str = "/v1/call/";

/// Everything between the outbound listeners and the connections to peers.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) own_name: Arc<str>,
    pub(crate) services: Arc<Services<Service>>,
    pub(crate) routes: Routes,
    /// What control planes want dropped.
    pub(crate) control_planes: Arc<ControlPlanes>,
    pub(crate) limits: Limits,
    pub(crate) ids: Ids,
    pub(crate) token: Option<Arc<ServiceTokens>>,
    pub(crate) recorder: Arc<Recorder>,
    /// What gives ids to writes, where they can be sent again.
    pub(crate) writes: Option<Writes>,
    pub(crate) tasks: Tasks,
}

/// What lives as long as an answer's body.
type Kept = (InFlight, Option<Permit>);

/// Where a request of this node's application is meant to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// Where its host or its path says.
    Host,
    /// To the service of that name, whatever its host says.
    Name(&'a str),
    /// To the service of a listener that has one of its own.
    Service(&'a Arc<Service>),
}

/// One service that can be called, with the state that all calls to it share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Arc<str>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) series: Arc<PairSeries>,
    /// The way of calls that no route has anything else in mind for.
    pub(crate) lane: Lane,
    /// The ways of calls of routes that have.
    pub(crate) lanes: ByRoute<Lane>,
    /// The ways of copies of routes that make some.
    pub(crate) copies: ByRoute<CopyLane>,
}

impl Service {
    /// Waits a while for the first answer of the source of its endpoints; at once where it has answered.
    pub(crate) async fn answered(&self) {
        if !self.endpoints.is_answered() {
            let answered = tokio::time::timeout(FIRST_ANSWER, self.endpoints.answered());
            // Without an answer there is no endpoint, which is what the call then fails with.
            drop(Box::pin(answered).await);
        }
    }

    /// The way of calls that a route takes, or that none does.
    pub(crate) fn lane(&self, way: Option<&Way>) -> &Lane {
        let own = way.and_then(|way| self.lanes.of(way.route.index));
        own.unwrap_or(&self.lane)
    }

    /// What there is to see of its lanes, its own first.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &Seen> {
        let own = std::iter::once(&self.lane);
        own.chain(self.lanes.all()).map(|lane| &lane.seen)
    }
}

impl Outbound {
    /// Ends the sessions with all services.
    pub(crate) async fn close_sessions(&self) {
        for service in self.services.all() {
            service.endpoints.close().await;
        }
    }

    /// Answers one request of the local application.
    pub(crate) async fn handle(&self, request: Request<Body>, to: To<'_>) -> Response<Body> {
        let started = now();
        let is_grpc = is_grpc(&request);
        let (parts, body) = request.into_parts();
        let mut request = match CanonicalRequest::new(parts, &self.limits) {
            Ok(request) => request,
            Err(error) => return self.refuse(&malformed(&error), is_grpc, None),
        };
        strip_identity_headers(request.headers_mut(), &[X_MESH_TIMEOUT_MS, X_MESH_ATTEMPT]);
        self.ids.ensure(request.headers_mut());
        let id = request.headers().get(X_REQUEST_ID).cloned();
        let refuse = |refusal: Refusal| self.refuse(&refusal, is_grpc, id.as_ref());
        let called = match called(&self.services, &mut request, to) {
            Ok(called) => called,
            Err(refusal) => return refuse(refusal),
        };
        let way = self.routes.find(&called.name, &request);
        if let Some(way) = way
            && let Some(redirect) = &way.route.redirect
        {
            let seen = (self.line(&called.name, Some(way), &request), None);
            let record = Record::new(&self.recorder, started, is_grpc, seen);
            return record.attach(redirected(redirect, &request), ());
        }
        let taken = way.map(|way| (way, self.routes.draw(way, request.headers())));
        if let Some(taken) = &taken
            && let Some(falling) =
                Falling::of(taken, &called.name, &request, (is_grpc, id.as_ref()))
        {
            // Boxed: it is rare, and must not make every call larger.
            let asked = (request, body, started);
            return Box::pin(answered(self, falling, asked, called.clone())).await;
        }
        let target = taken.as_ref().and_then(|(way, drawn)| way.target(drawn));
        let target_name = target.and_then(|target| target.service.as_deref());
        let service = match service(&self.services, called, target_name).await {
            Ok(service) => service,
            Err(refusal) => return refuse(refusal),
        };
        service.answered().await;
        let seen = (
            self.line(&service.name, way, &request),
            Some(Arc::clone(&service.series)),
        );
        let record = Record::new(&self.recorder, started, is_grpc, seen);
        let lane = service.lane(way);
        let (mut response, keep) = match self.prepare(&mut request, &service.name, way).await {
            Err(refusal) => (refuse(refusal), None),
            Ok(limits) => {
                let mut call = self.call(request, body, started);
                if let Some((way, drawn)) = &taken {
                    call = way.aim(call, drawn);
                }
                let outcome = self.send(call, &service, way).await;
                outcome.map_or_else(
                    |refusal| (refuse(refusal), None),
                    |(mut response, keep)| {
                        if let Some((way, drawn)) = &taken {
                            way.change_answer(drawn, response.headers_mut());
                        }
                        show_limits(response.headers_mut(), limits);
                        (response, Some(keep))
                    },
                )
            }
        };
        show_breaker(response.headers_mut(), lane);
        record.attach(response, keep)
    }

    /// The access-log part of a record.
    fn line(
        &self,
        service: &Arc<str>,
        way: Option<&Way>,
        request: &CanonicalRequest,
    ) -> Option<Box<Line>> {
        let line = self
            .recorder
            .line("outbound", (&self.own_name, service), request)?;
        Some(line.with_route(way.map(|way| &way.route.name)))
    }

    /// What must be done and hold before a call is sent. Gives what tells the caller of its route's limit.
    async fn prepare(
        &self,
        request: &mut CanonicalRequest,
        service: &str,
        way: Option<&Way>,
    ) -> Result<Option<LimitHeaders>, Refusal> {
        let mut limits = None;
        if let Some(way) = way {
            limits = way.admit()?;
            let failed = self.routes.fail(way, request.headers()).await;
            // Before the fault is told: what the route falls back to is asked for what would have been sent.
            way.change(request).map_err(|error| malformed(&error))?;
            if let Some(refusal) = failed {
                return Err(refusal);
            }
        }
        self.add_token(service, request.headers_mut())?;
        Ok(limits)
    }

    fn call(&self, request: CanonicalRequest, body: Body, started: Instant) -> OutboundCall {
        let parts = request.into_parts();
        let deadline = carried(&parts.headers).map(|left| Deadline::after(started, left));
        let body = body.with_trailer_rule(trailer_rule);
        OutboundCall::new(parts, body, deadline).with_write(self.writes.as_ref())
    }

    /// Sends a call down its lane.
    async fn send(
        &self,
        call: OutboundCall,
        service: &Arc<Service>,
        way: Option<&Way>,
    ) -> Result<(Response<Body>, Kept), Refusal> {
        let write = call.write();
        let may_have_run = call.may_have_run();
        let copy = way.and_then(|way| self.routes.copy(way, &call));
        let result = match self.control_planes.drops(&service.endpoints) {
            None => service.lane(way).send(call).await,
            Some(dropped) => {
                self.recorder.telemetry.discovery.dropped(&dropped);
                Err(dropped.into())
            }
        };
        // What nobody executed may be sent to another service next, and that may be the one that copies go to.
        if let Some(copy) = copy.filter(|_| result.is_ok() && may_have_run.any()) {
            self.mirror(copy, service);
        }
        // What one attempt proved says nothing of the others.
        let is_unprocessed = !may_have_run.any();
        match result {
            Ok(Answer {
                response,
                in_flight,
                permit,
                is_final,
            }) => {
                let mut response = response.map(|body| body.with_trailer_rule(trailer_rule));
                strip_hop_by_hop(response.headers_mut());
                let said = response.headers().get(X_MESH_PROCESSED).is_some();
                let is_bound = write.is_some_and(|write| write.is_bound());
                if said && !is_unprocessed {
                    response.headers_mut().remove(X_MESH_PROCESSED);
                    // Refused now, and perhaps executed before.
                    if is_bound {
                        return Err(outcome_unknown("it was refused when it was sent again"));
                    }
                }
                if is_bound && !is_final && !said && response.headers().contains_key(X_MESH_ERROR) {
                    return Err(outcome_unknown("the node that it went to gave it up"));
                }
                if judge(&response).outcome == Outcome::Failure {
                    // What could be tried again was. An application that carries this on keeps nodes above from multiplying it.
                    response.headers_mut().insert(X_MESH_RETRY, RETRY_NEVER);
                }
                Ok((response, (in_flight, permit)))
            }
            Err(error) => {
                let refusal = failed(&service.name, &error);
                Err(if is_unprocessed {
                    refusal
                } else if write.is_some_and(|write| write.is_bound()) {
                    outcome_unknown(refusal.message())
                } else {
                    refusal.maybe_processed()
                })
            }
        }
    }

    /// Sends a copy by itself.
    fn mirror(&self, copy: Copy<'_>, service: &Arc<Service>) {
        let name = copy.mirror.service.as_ref().unwrap_or(&service.name);
        let known = if **name == *service.name {
            Some(Arc::clone(service))
        } else {
            self.services.get(name)
        };
        let (services, asked, route) = (Arc::clone(&self.services), Arc::clone(name), copy.route);
        let lane = async move {
            let service = match known {
                Some(service) => service,
                None => services.find(&asked).await.ok()?,
            };
            service.answered().await;
            service.copies.of(route).cloned()
        };
        let mut token = HeaderMap::new();
        if self.add_token(name, &mut token).is_err() {
            return copy.dropped();
        }
        let sending = copy.into_task(lane, |head| {
            head.headers.remove(X_MESH_TOKEN);
            head.headers.extend(token);
        });
        if let Some(sending) = sending {
            self.tasks.start(sending);
        }
    }

    fn add_token(&self, service: &str, headers: &mut HeaderMap) -> Result<(), Refusal> {
        let Some(tokens) = &self.token else {
            return Ok(());
        };
        let token = tokens.for_call(service, unix_seconds((self.recorder.clock)()));
        let value = token
            .ok()
            .and_then(|token| HeaderValue::try_from(&*token).ok());
        let mut value = value.ok_or_else(|| {
            Refusal::new(Code::Unauthenticated, "could not issue a service token")
        })?;
        value.set_sensitive(true);
        headers.insert(X_MESH_TOKEN, value);
        Ok(())
    }

    fn refuse(&self, refusal: &Refusal, is_grpc: bool, id: Option<&HeaderValue>) -> Response<Body> {
        self.recorder.refused(refusal.code());
        refusal.clone().into_response(is_grpc, id)
    }
}

/// Says how the breaker stands that a call passed.
fn show_breaker(headers: &mut HeaderMap, lane: &Lane) {
    let state = lane.breaker.state(now());
    headers.insert(
        X_CIRCUIT_BREAKER_STATE,
        HeaderValue::from_static(state.as_str()),
    );
}

/// A request that can't be carried as it is.
pub(crate) fn malformed(error: &mesh_auth::request::RequestError) -> Refusal {
    let code = match error.status().as_u16() {
        413 => Code::TooLarge,
        431 | 414 => Code::HeadersTooLarge,
        _ => Code::BadRequest,
    };
    Refusal::new(code, error.to_string())
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
